#!lua flags=no-writes
-- Looks at shares, each with every set that counts or lists it at one moment; what is wrong with it others say.
--
-- KEYS  1 zset  active shares, by start tag
--       2 zset  shares with a backlog, by how many are queued
--       3 set   shares that are paused or overridden
--       and for each share:
--       + hash  the share: tags, rate, overrides
-- ARGV  1 prefix of the upstream's keys
--       and for each share:
--       + share
-- Returns {'looked', {facts, ...}}  nothing written; for each share, in order
-- Guarantee: the server lets it write nothing; an answer holds together, whatever happens before and after.
local prefix = ARGV[1]
local COMMON_KEYS, COMMON_ARGS = 3, 1

local function is(kind, key)
  return redis.call('TYPE', key).ok == kind
end

-- Where something else than a zset has a line's name, nobody stands there. Who walks through it tells that.
local function count(line)
  return is('zset', line) and redis.call('ZCARD', line) or 0
end

-- Facts of one: how many stand in its ready, held and waiting; its scores in backlog and active, false for none; 1 or 0
-- for whether it is marked, has something else than a hash, is paused, said to be overridden, overridden; the PTTL (ms)
-- of its hash.
local has_active, has_backlog, has_marked = is('zset', KEYS[1]), is('zset', KEYS[2]), is('set', KEYS[3])
local found = {}
for number = 1, #KEYS - COMMON_KEYS do
  local key, share = KEYS[COMMON_KEYS + number], ARGV[COMMON_ARGS + number]
  local fields = is('hash', key) and redis.call('HMGET', key, 'paused', 'overridden', 'o_rate', 'o_burst', 'o_weight',
    'o_max_queued', 'o_over_limit')
  local no_hash = not fields and redis.call('EXISTS', key) or 0
  fields = fields or {}
  local overridden = 0
  for position = 3, 7 do
    if fields[position] then
      overridden = 1
    end
  end
  found[number] = { count(prefix .. 'ready:' .. share), count(prefix .. 'held:' .. share),
    count(prefix .. 'waiting:' .. share), has_backlog and redis.call('ZSCORE', KEYS[2], share),
    has_active and redis.call('ZSCORE', KEYS[1], share), has_marked and redis.call('SISMEMBER', KEYS[3], share) or 0,
    no_hash, fields[1] == '1' and 1 or 0, fields[2] == '1' and 1 or 0, overridden, redis.call('PTTL', key) }
end
return { 'looked', found }
