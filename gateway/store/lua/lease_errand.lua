#!lua flags=allow-oom
-- Hands out the next thing that Batch is to be asked for beside submitting: a look for a job, a termination, an update.
--
-- KEYS  1 hash  the upstream: counters, virtual time, pace
--       2 zset  errands, by when they are due or their lease ends (ms)
-- ARGV  1 prefix of the upstream's keys  2 length of a lease (ms)  3 errands a second
-- Returns {'wait', ms or -1}  nothing written; -1: until something arrives
--         {'dropped'}         written: nothing was owed; ask again
--         {'leased', id, record, number, kind}  written; the kind is look, terminate or update
-- Guarantee: one process at a time has an errand; whoever had it before settles nothing any more.
local prefix, lease_ms, rate = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = math.floor(clock_us() / 1000)

local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if not first[1] then
  return { 'wait', -1 }
end
local id, due = first[1], tonumber(first[2])
local upstream = redis.call('HMGET', KEYS[1], 'sequence', 'errand_slot', 'version')
refuse_newer(upstream[3])
local opens = math.max(due, tonumber(upstream[2] or 0))
if opens > now then
  return { 'wait', opens - now }
end
local record, rest = read_record(prefix .. 'sub:' .. id)
local kind = record
  and ((record.look and 'look') or (record.terminate and 'terminate') or (record.update and 'update'))
if not kind then
  redis.call('ZREM', KEYS[2], id)
  return { 'dropped' }
end

local number = tonumber(upstream[1] or 0) + 1
record.errand = number
local value = pack_record(record, rest)
redis.call('SET', prefix .. 'sub:' .. id, value)
redis.call('ZADD', KEYS[2], int(now + lease_ms), id)
redis.call('HSET', KEYS[1], 'sequence', int(number), 'errand_slot', int(now + 1000 / rate))
return { 'leased', id, value, number, kind }
