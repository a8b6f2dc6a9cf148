#!lua flags=allow-oom
-- Lets one call of Batch pass that only reads, or says when the next may go.
--
-- KEYS  1 hash  the upstream: counters, virtual time, pace
-- ARGV  1 rate (calls a second)  2 burst (calls)
-- Returns {'taken'}     written
--         {'wait', ms}  nothing written
-- Guarantee: in any time t the whole fleet gets no more than burst + rate * t.
local step_us, burst = 1000000 / tonumber(ARGV[1]), tonumber(ARGV[2])
local now_us = clock_us()
local expected = math.max(tonumber(redis.call('HGET', KEYS[1], 'read_slot') or 0), now_us)
local early = expected - now_us - (burst - 1) * step_us
if early > 0.5 then -- half a microsecond: a rounding, not a call
  return { 'wait', math.ceil(early / 1000) }
end
redis.call('HSET', KEYS[1], 'read_slot', exact(expected + step_us))
return { 'taken' }
