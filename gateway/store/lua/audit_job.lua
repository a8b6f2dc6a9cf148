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

-- Facts of one: its value, its PTTL (ms), the value of what it points to; false for a value that is not there.
local found = {}
for number, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  local other = value and redis.call('GET', prefix .. ARGV[COMMON_ARGS + number] .. ':' .. value)
  found[number] = { value, redis.call('PTTL', key), other }
end
return { 'looked', found }
