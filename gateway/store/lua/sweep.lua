#!lua flags=allow-oom
-- Takes those out of a list whose records have expired, some at a time, from where the last sweep stopped.
--
-- KEYS  1 zset  submissions of one namespace, or what ended without a job of one queue, by when accepted (ms)
--       2 set   namespaces, or queues, that have such a list
-- ARGV  1 prefix of the upstream's keys  2 namespace or queue  3 only those accepted before this (ms)
--       4 how many of them are passed over  5 how many are looked at
-- Returns {'swept', how many were looked at, how many of them went}  written
-- Guarantee: only what has no record leaves the list.
local prefix, name, before = ARGV[1], ARGV[2], ARGV[3]
local offset, most = tonumber(ARGV[4]), tonumber(ARGV[5])

redis.call('SCARD', KEYS[2])
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', before, 'LIMIT', offset, most)
local gone = {}
for _, id in ipairs(ids) do
  if redis.call('EXISTS', prefix .. 'sub:' .. id) == 0 then
    gone[#gone + 1] = id
  end
end
for _, id in ipairs(gone) do
  redis.call('ZREM', KEYS[1], id)
end
if redis.call('ZCARD', KEYS[1]) == 0 then
  redis.call('SREM', KEYS[2], name)
end
return { 'swept', #ids, #gone }
