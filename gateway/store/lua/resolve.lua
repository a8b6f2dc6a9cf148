#!lua flags=allow-oom
-- Writes down what a person found out about a dead letter: its job, or that there is none.
--
-- KEYS  1 string  the record
--       2 string  the submission that Batch's job id stands for (unused without one)
-- ARGV  1 id  2 prefix of the upstream's keys  3 job id, or empty for none  4 job ARN
--       5 retention of the record (ms)  6 retention of the job id (ms)  7 1 to close a rejected one
-- Returns {'gone'}              nothing written
--         {'refused', record}   nothing written: it is no dead letter of the right kind
--         {'same', record}      nothing written: that is what it says
--         {'owned', owner}      nothing written: the job is another submission's
--         {'resolved', record}  written
-- Guarantee: a job belongs to one submission; one that was to be canceled is owed its termination, or is canceled; a
-- closed one drops what was asked, and expires.
local id, prefix, job_id, job_arn = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local retention_ms, alias_ms, close = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
local now = math.floor(clock_us() / 1000)

local record, rest, value = read_record(KEYS[1])
if not record then
  return { 'gone' }
end
local waits = is_dead_letter(record)
local rejected = waits and record.state == 'rejected'
if (job_id ~= '' and record.job_id == job_id)
  or (close and record.closed)
  or (rejected and job_id == '' and not close) then
  return { 'same', value }
end
if not waits or rejected ~= close then
  return { 'refused', value }
end
read_ended(prefix, record)
redis.call('ZCARD', prefix .. 'errands')
redis.call('EXISTS', prefix .. 'alias:' .. id)
local owner = job_id ~= '' and redis.call('GET', KEYS[2])
if owner and owner ~= id then
  return { 'owned', owner }
end

record.sent = nil
if record.state == 'rejected' then
  record.closed = true
elseif job_id == '' then
  record.state = record.cancel and early_end(record.cancel) or 'rejected'
else
  record.state, record.job_id, record.job_arn, record.error = 'forwarded', job_id, job_arn, nil
  record.settled = now
  owe(record)
  remember_job(prefix, id, KEYS[2], job_id, alias_ms)
end
return { 'resolved', write_final(prefix, id, record, rest, now, retention_ms) }
