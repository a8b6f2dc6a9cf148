#!lua flags=allow-oom
-- Writes down how an errand ended: the job that was found or not, the termination or update that Batch took or not.
--
-- KEYS  1 string  the record
--       2 string  the submission that Batch's job id stands for (unused without one)
-- ARGV  1 id  2 prefix of the upstream's keys  3 lease number  4 verdict: found, looked, unknown, done, moot, later
--       5 kind: look, terminate, update  6 delay until the next try (ms)  7 job id  8 job ARN
--       9 error code  10 error message  11 retention of the record (ms)  12 retention of the job id (ms)
--       13 time that an idle share is remembered (ms)  14 channel for ends
-- Returns {'gone'}             nothing written
--         {'stale', record}    nothing written: the lease is not the current one
--         {'owned', owner}     nothing written: the job is another submission's
--         {'settled', record}  written
-- Guarantee: a job belongs to one submission; what was asked while the errand ran makes it stale, and is still owed.
local id, prefix, number, verdict, kind = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local delay_ms, job_id, job_arn, code, message = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local retention_ms, alias_ms = tonumber(ARGV[11]), tonumber(ARGV[12])
local idle_ms, channel = tonumber(ARGV[13]), ARGV[14]
local now = math.floor(clock_us() / 1000)

local record, rest, value = read_record(KEYS[1])
if not record then
  return { 'gone' }
end
if record.errand ~= number or (kind == 'look' and not record.look) then
  return { 'stale', value }
end
local owner = job_id ~= '' and redis.call('GET', KEYS[2])
if owner and owner ~= id then
  return { 'owned', owner }
end
local standing = standing_of(prefix, id, record)
redis.call('EXISTS', prefix .. 'alias:' .. id)

record.errand = nil
if verdict == 'found' or verdict == 'unknown' then
  record.state = verdict == 'found' and 'forwarded' or 'unknown'
  stand_nowhere(standing)
  count_out(standing, idle_ms)
  if verdict == 'found' then
    record.job_id, record.job_arn, record.error = job_id, job_arn, nil
    owe(record)
    remember_job(prefix, id, KEYS[2], job_id, alias_ms)
    redis.call('HINCRBY', prefix .. 'upstream', 'passed', 1)
  else
    record.error = { code = code, message = message }
  end
  value = write_final(prefix, id, record, rest, now, retention_ms)
  redis.call('PUBLISH', channel, id)
  return { 'settled', value }
end
if verdict == 'done' or verdict == 'moot' then
  redis.call('ZREM', prefix .. 'errands', id)
  if verdict == 'moot' then
    record.error = { code = code, message = message }
  end
  if kind == 'terminate' then
    record.terminate, record.terminated = nil, verdict == 'done' and now or nil
  end
  record.update = nil -- a job that is to end needs no other priority
  return { 'settled', write_final(prefix, id, record, rest, now, retention_ms) }
end
if verdict == 'looked' then
  record.look.looks = record.look.looks + 1
else
  record.errand_tries = (record.errand_tries or 0) + 1
end
value = pack_record(record, rest)
redis.call('SET', KEYS[1], value)
redis.call('ZADD', prefix .. 'errands', int(now + delay_ms), id)
return { 'settled', value }
