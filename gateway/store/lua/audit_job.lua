#!lua flags=no-writes
-- Looks at what is remembered of jobs beyond their records: which job a submission has, and whose a job is.
--
-- KEYS  for each pointer:
--       + string  a submission's job, or a job's submission
-- ARGV  1 prefix of the upstream's keys
--       and for each pointer:
--       + what it points to: job or alias
-- Returns {'looked', {facts, ...}}  nothing written; for each pointer, in order
-- Guarantee: the server lets it write nothing; an answer holds together, whatever happens before and after.
local prefix = ARGV[1]
local COMMON_ARGS = 1

local function text_at(key)
  return redis.call('TYPE', key).ok == 'string' and redis.call('GET', key)
end

-- Facts of one: its value, its PTTL (ms), the value of what it points to; false for a value that is not there or no
-- string.
local found = {}
for number, key in ipairs(KEYS) do
  local value = text_at(key)
  local other = value and text_at(prefix .. ARGV[COMMON_ARGS + number] .. ':' .. value)
  found[number] = { value, redis.call('PTTL', key), other }
end
return { 'looked', found }
