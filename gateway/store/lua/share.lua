#!lua flags=allow-oom
-- Changes what operators set for a share, for the whole fleet, and lets it into or out of the fair order accordingly.
--
-- KEYS  1 hash  the share: tags, rate, overrides
--       2 zset  the share's ready submissions, by place
--       3 zset  active shares, by start tag
--       4 hash  the upstream: counters, virtual time, pace
--       5 zset  shares with a backlog, by how many are queued
--       6 set   shares that are paused or overridden
--       7 zset  delayed submissions, by when they are due (ms)
--       8 zset  the share's submissions that wait for its rate, by when they are due (ms)
-- ARGV  1 share  2 channel to wake forwarders  3 time that an idle share is remembered (ms)
--       4 rate (submissions a second, 0 = none) and  5 burst (submissions) where nothing is set over them
--       6.. field and value in turn; an empty value resets the field
-- Returns {'set'}  written
-- Guarantee: a share is active if and only if it has something ready and is not paused; a new weight counts from the
-- share's next turn on, and a new rate also for those that wait for it: in their order, before whatever comes later.
local share, channel, idle_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local settings_rate, settings_burst = tonumber(ARGV[4]), tonumber(ARGV[5])
local OVERRIDES = { 'o_rate', 'o_burst', 'o_weight', 'o_max_queued', 'o_over_limit' }

local stored = redis.call('HMGET', KEYS[1], 'finish', 'paused', 'weight', unpack(OVERRIDES))
local ready = redis.call('ZCARD', KEYS[2])
local active = redis.call('ZSCORE', KEYS[3], share)
local virtual = tonumber(redis.call('HGET', KEYS[4], 'virtual') or 0)
local backlog = redis.call('ZSCORE', KEYS[5], share)
redis.call('SCARD', KEYS[6])
redis.call('ZCARD', KEYS[7])
local held = redis.call('ZRANGE', KEYS[8], 0, -1)
local now_us = clock_us()
local fields = { paused = stored[2] or '' }
for position, name in ipairs(OVERRIDES) do
  fields[name] = stored[position + 3] or ''
end
local rate_before = tonumber(fields.o_rate) or settings_rate
local weight_before = tonumber(fields.o_weight) or tonumber(stored[3] or 1)
for position = 6, #ARGV, 2 do
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
local rate = tonumber(fields.o_rate) or settings_rate
if rate ~= rate_before and #held > 0 then
  local step_us = rate > 0 and 1000000 / rate or 0
  for number, id in ipairs(held) do
    local due = int(math.ceil((now_us + number * step_us) / 1000))
    redis.call('ZADD', KEYS[7], due, id)
    redis.call('ZADD', KEYS[8], due, id)
  end
  -- As if they had just been sent: the next one conforms a step behind the last of them.
  local burst = tonumber(fields.o_burst) or settings_burst
  redis.call('HSET', KEYS[1], 'tat', exact(now_us + (#held + burst) * step_us), 'tat_rate', exact(rate))
  redis.call('PUBLISH', channel, share)
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
