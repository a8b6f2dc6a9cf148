#!lua flags=allow-oom
-- Writes down how an attempt ended: the submission's next state or place, and what the call told of the upstream.
--
-- KEYS  1 string  the record
--       2 hash    the upstream: counters, virtual time, pace
--       3 hash    denied (queue, role) pairs, by when they are tried again (ms)
--       4 set     shares that are paused or overridden
--       5 string  the submission that Batch's job id stands for (unused without one)
-- ARGV  1 id  2 prefix of the upstream's keys  3 lease number
--       4 verdict: forwarded, retry, reject, unknown, reconcile  5 outcome (a word for the attempt)
--       6 charged (1 or 0)  7 proved that the call made no job (1 or 0)  8 delay (ms)
--       9 signal: none, answered, throttled, failed, unreachable, credentials, denied  10 wait that Batch told (ms)
--       11 error code  12 error message  13 job id  14 job ARN  15 bound of charged tries  16 bound of time (ms)
--       17 retention of the record (ms)  18 retention of the job id (ms)  19 channel for ends
--       20 rate (calls a second)  21 the pace's figures, a msgpack map as core/pace.py names them
--       22 time that an idle share is remembered (ms)  23 time until the first look for a job (ms)
-- Returns {'gone'}                              nothing written
--         {'stale', record}                     nothing written: the lease is not the current one
--         {'settled' or 'late', record, msgpack map: charged, pace, held, released, outage, paused}  written
-- Guarantee: `forwarded` is taken from any attempt, all else from the current lease only; what ended otherwise keeps
-- its end, learns of its job and is owed that job's termination; one that is to end early is not tried again.
local id, prefix, number, verdict, outcome = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local charged, proved_none, delay_ms = ARGV[6] == '1', ARGV[7] == '1', tonumber(ARGV[8])
local signal, told_ms, code, message = ARGV[9], tonumber(ARGV[10]), ARGV[11], ARGV[12]
local job_id, job_arn, max_tries, window_ms = ARGV[13], ARGV[14], tonumber(ARGV[15]), tonumber(ARGV[16])
local retention_ms, alias_ms, channel = tonumber(ARGV[17]), tonumber(ARGV[18]), ARGV[19]
local rate, rules = tonumber(ARGV[20]), cmsgpack.unpack(ARGV[21])
local idle_ms, look_ms = tonumber(ARGV[22]), tonumber(ARGV[23])

local now = math.floor(clock_us() / 1000)
local record, rest, value = read_record(KEYS[1])
if not record then
  return { 'gone' }
end
local queued = record.state == 'queued'
local current = queued and record.lease == number
if verdict == 'forwarded' then
  if record.job_id then
    return { 'stale', value }
  end
elseif not current then
  return { 'stale', value }
end

local passed = tonumber(redis.call('HGET', KEYS[2], 'passed') or 0)
local pace = read_pace(KEYS[2])
local standing = standing_of(prefix, id, record)
local alike_before = redis.call('HMGET', standing.share_key, 'alike', 'alike_code')
local was_held = record.hold and redis.call('HEXISTS', KEYS[3], record.hold) == 1
redis.call('SCARD', KEYS[4])
if job_id ~= '' then
  redis.call('EXISTS', KEYS[5])
  redis.call('EXISTS', prefix .. 'alias:' .. id)
end
local told = { charged = false }

-- ---- The upstream first, for it decides whether the try is charged.
local call = { id = id, signal = signal, now = now, rate = rate, paced = record.paced, told_ms = told_ms }
local set, outage = hear(pace, call, rules, told)

-- ---- The submission.
if queued and record.deadline and record.deadline <= now then
  record.cancel = record.cancel or { by = 'deadline', at = now } -- it came during the call
end
local final -- the state that it ends in
local look = verdict == 'reconcile'
local retry = verdict == 'retry'
if proved_none and verdict ~= 'forwarded' then
  record.sent = record.before
end
if verdict == 'forwarded' then
  -- One that ended as if there were no job keeps that end: its caller may have gone on without it.
  final = (queued or record.state == 'unknown') and 'forwarded' or record.state
  record.settled = final == 'forwarded' and now or record.settled
  record.job_id, record.job_arn = job_id, job_arn
  record.terminate = final ~= 'forwarded' or nil
  owe(record)
elseif verdict == 'reject' then
  final = record.cancel and not record.sent and early_end(record.cancel) or 'rejected'
elseif verdict == 'unknown' then
  final = 'unknown'
  if record.cancel then
    look, final = record.sent, not record.sent and early_end(record.cancel) or nil
  end
elseif retry then
  if charged and (outage or record.probe) then
    charged = false
  end
  if not charged and signal ~= 'none' and signal ~= 'credentials' then
    -- Given back again and again while others passed: it is this submission, and it must come to an end.
    if passed > (record.passed or 0) then
      record.returns = (record.returns or 0) + 1
      record.passed = passed
    end
    charged = (record.returns or 0) > rules.poison_returns and not (outage or record.probe)
  end
  if charged then
    record.tries = (record.tries or 0) + 1
    record.first = record.first or record.leased_at
  end
  if record.cancel then
    look, final = record.sent, not record.sent and early_end(record.cancel) or nil
  elseif charged and (record.tries >= max_tries or now - record.first >= window_ms) then
    final = record.sent and 'unknown' or 'rejected'
  end
end
told.charged = charged
if outage and not charged then
  delay_ms = 0 -- probes take turns by themselves; a delay would only empty the line
end

add_attempt(record, record.leased_at or now, outcome, code)
if code ~= '' and final ~= 'forwarded' then
  record.error = { code = code, message = message }
elseif final == 'forwarded' then
  record.error = nil
end
local cost = record.cost or 0 -- what the lease added to the share's F
if current then
  record.lease, record.before, record.paced, record.probe, record.cost = nil, nil, nil, nil, nil
end
local alike = 0
if final == 'rejected' and queued then
  alike = 1
  if alike_before[2] == code then
    alike = tonumber(alike_before[1] or 0) + 1
  end
end
local pause = alike >= rules.like_rejections and not standing.paused

-- ---- All is read and decided; now write.
if #set > 0 then
  redis.call('HSET', KEYS[2], unpack(set))
end
local start = math.max(standing.virtual, standing.finish) -- of its share, should it have nothing else ready
if retry and not charged and signal ~= 'denied' then -- a share full of denied ones must not stay first
  -- As if it had never been leased; but what others were served meanwhile is made up for by one turn, not more.
  start = math.max(standing.virtual - 1 / standing.weight, standing.finish - cost)
  redis.call('HSET', standing.share_key, 'finish', exact(start))
  if standing.start then
    redis.call('ZADD', prefix .. 'active', exact(start), record.share)
  end
end
if final then
  record.state = final
  if queued then
    stand_nowhere(standing)
    count_out(standing, idle_ms)
  end
  if job_id ~= '' then
    remember_job(prefix, id, KEYS[5], job_id, alias_ms)
  end
  value = write_final(prefix, id, record, rest, now, retention_ms)
  if final == 'rejected' and queued then
    redis.call('HSET', standing.share_key, 'alike', int(alike), 'alike_code', code)
  elseif final == 'forwarded' then
    redis.call('HINCRBY', KEYS[2], 'passed', 1)
    redis.call('HDEL', standing.share_key, 'alike', 'alike_code')
  end
  redis.call('PUBLISH', channel, id)
elseif look then
  stand_for_a_look(standing, record, now + look_ms)
  value = pack_record(record, rest)
  redis.call('SET', KEYS[1], value)
else
  value = pack_record(record, rest)
  redis.call('SET', KEYS[1], value)
  if delay_ms > 0 then
    redis.call('ZADD', prefix .. 'delayed', int(now + delay_ms), id)
  else
    stand_ready(standing, record.place, start)
  end
  redis.call('ZREM', prefix .. 'leased', id)
end
if signal == 'denied' then
  redis.call('HSET', KEYS[3], record.hold, int(now + rules.denied_hold_ms))
elseif was_held and signal == 'answered' then
  redis.call('HDEL', KEYS[3], record.hold)
  told.released = 'denied'
end
if pause then
  redis.call('HSET', standing.share_key, 'paused', '1', 'paused_because', 'rejections: ' .. code)
  redis.call('PERSIST', standing.share_key)
  redis.call('SADD', KEYS[4], record.share)
  redis.call('ZREM', prefix .. 'active', record.share)
  told.paused = true
end
return { final and not queued and 'late' or 'settled', value, cmsgpack.pack(told) }
