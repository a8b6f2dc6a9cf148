#!lua flags=allow-oom
-- Changes what operators set for a share, for the whole fleet, and lets it into or out of the fair order accordingly.
--
-- KEYS  1 hash  the share: tags, rate, overrides
--       2 zset  the share's ready submissions, by place
--       3 zset  active shares, by start tag
--       4 hash  the upstream: counters, virtual time, pace
--       5 zset  shares with a backlog, by how many are queued
--       6 set   shares that are paused or overridden
-- ARGV  1 share  2 channel to wake forwarders  3 time that an idle share is remembered (ms)
--       4.. field and value in turn; an empty value resets the field
-- Returns {'set'}  written
-- Guarantee: a share is active if and only if it has something ready and is not paused; a new weight counts from the
-- share's next turn on.
local share, channel, idle_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local OVERRIDES = { 'o_rate', 'o_burst', 'o_weight', 'o_max_queued', 'o_over_limit' }

local stored = redis.call('HMGET', KEYS[1], 'finish', 'paused', 'weight', unpack(OVERRIDES))
local ready = redis.call('ZCARD', KEYS[2])
local active = redis.call('ZSCORE', KEYS[3], share)
local virtual = tonumber(redis.call('HGET', KEYS[4], 'virtual') or 0)
local backlog = redis.call('ZSCORE', KEYS[5], share)
redis.call('SCARD', KEYS[6])
local fields = { paused = stored[2] or '' }
for position, name in ipairs(OVERRIDES) do
  fields[name] = stored[position + 3] or ''
end
local weight_before = tonumber(fields.o_weight) or tonumber(stored[3] or 1)
for position = 4, #ARGV, 2 do
  fields[ARGV[position]] = ARGV[position + 1]
end
local weight = tonumber(fields.o_weight) or tonumber(stored[3] or 1)
local finish = tonumber(stored[1] or 0)
-- The last turn is paid for by the new weight: by a small one it might have put off the next by hours.
local reweighed = weight ~= weight_before and finish > virtual
if reweighed then
  finish = finish - 1 / weight_before + 1 / weight
end

for name, text in pairs(fields) do
  if text == '' then
    redis.call('HDEL', KEYS[1], name)
  else
    redis.call('HSET', KEYS[1], name, text)
  end
end
local overridden = false
for _, name in ipairs(OVERRIDES) do
  overridden = overridden or fields[name] ~= ''
end
redis.call('HSET', KEYS[1], 'overridden', overridden and '1' or '0')
if reweighed then
  redis.call('HSET', KEYS[1], 'finish', exact(finish))
  if active then
    redis.call('ZADD', KEYS[3], exact(math.max(virtual, finish)), share)
  end
end
if fields.paused == '1' then
  redis.call('ZREM', KEYS[3], share)
else
  redis.call('HDEL', KEYS[1], 'alike', 'alike_code', 'paused_because') -- a resumed share starts with a clean sheet
  if ready > 0 and not active then
    redis.call('ZADD', KEYS[3], exact(math.max(virtual, finish)), share)
    redis.call('PUBLISH', channel, share)
  end
end
if overridden or fields.paused == '1' then
  redis.call('SADD', KEYS[6], share)
else
  redis.call('SREM', KEYS[6], share)
end
if overridden or fields.paused == '1' or backlog then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], idle_ms)
end
return { 'set' }
