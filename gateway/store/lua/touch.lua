#!lua flags=allow-oom
-- Writes a key of no meaning, and says which leases still hold.
--
-- KEYS  1 string  empty
--       and for each lease:
--       + string  the record
-- ARGV  and for each lease:
--       + its number
-- Returns {'touched', 1 or 0, ...}  written; 1: the lease holds
-- Guarantee: something is written, also in a full store. Who waits on this connection afterwards, for the disk or for
-- replicas, waits for all that was written before, by whichever connection: the leases that hold among it.
redis.call('EXISTS', KEYS[1])
local held = {}
for number = 2, #KEYS do
  local record = read_record(KEYS[number])
  local holds = record and record.state == 'queued' and record.lease == tonumber(ARGV[number - 1])
  held[number - 1] = holds and 1 or 0
end
redis.call('SET', KEYS[1], '')
return { 'touched', unpack(held) }
