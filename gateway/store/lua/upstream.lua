#!lua flags=allow-oom
-- Changes what operators set for the upstream, for the whole fleet: whether it accepts and forwards, and how fast.
--
-- KEYS  1 hash  the upstream: counters, virtual time, pace
-- ARGV  1 channel to wake forwarders  2 the settings' rate (calls a second)
--       3.. field and value in turn; an empty value resets the field
-- Returns {'set'}  written
-- Guarantee: a rate that rises holds from the next call on, also where throttles had slowed the calls: no slot lies
-- further ahead than one step of it. What Batch or an outage makes calls wait for stays.
local channel, rate = ARGV[1], tonumber(ARGV[2])
local SWITCHES = { 'accepting', 'forwarding', 'o_rate' }

local now_us = clock_us()
local stored = redis.call('HMGET', KEYS[1], 'slot', unpack(SWITCHES))
local fields = {}
for position, name in ipairs(SWITCHES) do
  fields[name] = stored[position + 1] or ''
end
local rate_before, stopped_before = tonumber(fields.o_rate) or rate, fields.forwarding == '0'
for position = 3, #ARGV, 2 do
  fields[ARGV[position]] = ARGV[position + 1]
end
rate = tonumber(fields.o_rate) or rate
local rises = rate > rate_before
local slot = tonumber(stored[1] or 0)
local furthest = now_us + 1000000 / rate

for name, text in pairs(fields) do
  if text == '' then
    redis.call('HDEL', KEYS[1], name)
  else
    redis.call('HSET', KEYS[1], name, text)
  end
end
if rises then
  -- Whoever raises the rate knows of a larger budget than the one that throttles told of: they will tell of this one.
  redis.call('HDEL', KEYS[1], 'pace', 'ceiling', 'ceiling_at', 'ceiling_for')
  if slot > furthest then
    redis.call('HSET', KEYS[1], 'slot', exact(furthest))
  end
end
if fields.forwarding ~= '0' and (rises or stopped_before) then
  redis.call('PUBLISH', channel, '')
end
return { 'set' }
