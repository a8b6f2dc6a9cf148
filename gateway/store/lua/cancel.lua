#!lua flags=allow-oom
-- Ends a submission at its caller's wish: at once where no call can have made a job, else by a look or a termination.
--
-- KEYS  1 string  the record
-- ARGV  1 id  2 prefix of the upstream's keys  3 reason, for TerminateServiceJob  4 time until the first look (ms)
--       5 retention of the record (ms)  6 time that an idle share is remembered (ms)  7 channel for ends
-- Returns {'gone'}               nothing written
--         {'final', record}      nothing written: it has another end already
--         {'done', record}       nothing written: it is canceled, or its job is terminated
--         {'pending', record}    nothing written: that was asked before
--         {'canceled', record}   written
--         {'requested', record}  written
-- Guarantee: a submission that may be in Batch is never called canceled; its job, once known, is owed a termination.
local id, prefix, reason, look_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local retention_ms, idle_ms, channel = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local now = math.floor(clock_us() / 1000)

local record, rest, value = read_record(KEYS[1])
if not record then
  return { 'gone' }
end
if record.state == 'canceled' or (record.state == 'forwarded' and record.terminated) then
  return { 'done', value }
end
if record.state ~= 'queued' and record.state ~= 'forwarded' then
  return { 'final', value }
end
if record.cancel and (record.state == 'queued' or record.terminate) then
  return { 'pending', value }
end
local standing = standing_of(prefix, id, record)

record.cancel = { by = 'caller', reason = reason, at = now }
if record.state == 'forwarded' then
  record.terminate = true
  return { 'requested', write_final(prefix, id, record, rest, now, retention_ms) }
end
if not record.lease and not record.sent then
  record.state = 'canceled'
  stand_nowhere(standing)
  count_out(standing, idle_ms)
  value = write_final(prefix, id, record, rest, now, retention_ms)
  redis.call('PUBLISH', channel, id)
  return { 'canceled', value }
end
if not record.lease and not record.look then
  stand_for_a_look(standing, record, now + look_ms)
end
value = pack_record(record, rest)
redis.call('SET', KEYS[1], value)
return { 'requested', value }
