#!lua flags=allow-oom
-- Gives a submission another priority: another place in its share's line, or an update owed to Batch.
--
-- KEYS  1 string  the record
-- ARGV  1 id  2 prefix of the upstream's keys  3 priority  4 retention of the record (ms)
-- Returns {'gone'}            nothing written
--         {'final', record}   nothing written: no job will come of it, or its job is to end
--         {'placed', record}  written
--         {'owed', record}    written
-- Guarantee: the request stays as it was frozen; what Batch was told otherwise it is owed as soon as it has the job.
local id, prefix, priority, retention_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local now = math.floor(clock_us() / 1000)

local record, rest, value = read_record(KEYS[1])
if not record then
  return { 'gone' }
end
if (record.state ~= 'queued' and record.state ~= 'forwarded') or record.cancel then
  return { 'final', value }
end
local standing = standing_of(prefix, id, record)

record.asked_place = record.asked_place or record.place
record.place = moved_place(record.place, priority)
if record.state == 'forwarded' then
  record.update = true
  return { 'owed', write_final(prefix, id, record, rest, now, retention_ms) }
end
value = pack_record(record, rest)
redis.call('SET', KEYS[1], value)
if standing.in_ready then
  redis.call('ZADD', standing.ready_key, int(record.place), id)
end
return { 'placed', value }
