#!lua flags=allow-oom
-- Writes down how an attempt ended: the submission's next state or place, and what the call told of the upstream.
--
-- KEYS  1 string  the record
--       2 hash    the upstream: counters, virtual time, pace
--       3 zset    active shares, by start tag
--       4 zset    delayed submissions, by when they are due (ms)
--       5 zset    leased submissions, by when the lease ends (ms)
--       6 zset    shares with a backlog, by how many are queued
--       7 hash    queues, by how many of their shares have a backlog
--       8 hash    denied (queue, role) pairs, by when they are tried again (ms)
--       9 hash    the share: tags, rate, overrides
--       10 zset   the share's ready submissions, by place
--       11 string  the submission that Batch's job id stands for (unused without one)
--       12 set    shares that are paused or overridden
-- ARGV  1 id  2 lease number  3 verdict: forwarded, retry, reject, unknown  4 outcome (a word for the attempt)
--       5 charged (1 or 0)  6 proved that the call made no job (1 or 0)  7 delay (ms)
--       8 signal: none, answered, throttled, failed, unreachable, credentials, denied  9 wait that Batch told (ms)
--       10 error code  11 error message  12 job id  13 job ARN  14 bound of charged tries  15 bound of time (ms)
--       16 retention of the record (ms)  17 retention of the job id (ms)  18 channel for ends
--       19 rate (calls a second)  20 the pace's figures, a msgpack map as core/pace.py names them
--       21 time that an idle share is remembered (ms)
-- Returns {'gone'}                              nothing written
--         {'stale', record}                     nothing written: the lease is not the current one
--         {'settled' or 'late', record, msgpack map: charged, pace, held, released, outage, paused}  written
-- Guarantee: `forwarded` is taken from any attempt, all else from the current lease only; a record that is final
-- changes only to learn of its job.
local id, number, verdict, outcome = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local charged, proved_none, delay_ms = ARGV[5] == '1', ARGV[6] == '1', tonumber(ARGV[7])
local signal, told_ms, code, message = ARGV[8], tonumber(ARGV[9]), ARGV[10], ARGV[11]
local job_id, job_arn, max_tries, window_ms = ARGV[12], ARGV[13], tonumber(ARGV[14]), tonumber(ARGV[15])
local retention_ms, alias_ms, channel = tonumber(ARGV[16]), tonumber(ARGV[17]), ARGV[18]
local rate, rules, idle_ms = tonumber(ARGV[19]), cmsgpack.unpack(ARGV[20]), tonumber(ARGV[21])

local UNPROVED_CEILING_MS = 10000 -- soon after a storm the pace must be back
local NEAR = 0.9 -- of the limit in force: jitter can make a budget of five calls a second look like four and a half

local now = math.floor(clock_us() / 1000)
local record, rest, value = read_record(KEYS[1])
if not record then
  return { 'gone' }
end
local queued = record.state == 'queued'
local current = queued and record.lease == number
if verdict == 'forwarded' then
  if record.state == 'forwarded' then
    return { 'stale', value }
  end
elseif not current then
  return { 'stale', value }
end

local pace = redis.call('HMGET', KEYS[2], 'virtual', 'queued', 'bytes', 'pace', 'ceiling', 'ceiling_at', 'slowed_at',
  'passed_slowed', 'failures', 'failed_ids', 'outage', 'passed', 'o_rate', 'held_until', 'not_before', 'ceiling_for')
local tags = redis.call('HMGET', KEYS[9], 'finish', 'paused', 'alike', 'alike_code', 'overridden',
  'weight', 'o_weight')
local start = redis.call('ZSCORE', KEYS[3], record.share)
local backlog = tonumber(redis.call('ZSCORE', KEYS[6], record.share) or 0)
local shares = tonumber(redis.call('HGET', KEYS[7], record.queue) or 0)
local was_held = record.hold and redis.call('HEXISTS', KEYS[8], record.hold) == 1
redis.call('ZCARD', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('ZCARD', KEYS[10])
redis.call('SCARD', KEYS[12])
if job_id ~= '' then
  redis.call('EXISTS', KEYS[11])
end
local passed = tonumber(pace[12] or 0)
local outage = pace[11] == '1'
local told = { charged = false }

-- ---- The upstream: what the call told of it, first, for it decides whether the try is charged.
local set = {}
local function put(field, text)
  set[#set + 1] = field
  set[#set + 1] = text
end
rate = tonumber(pace[13] or rate)
local speed = math.min(tonumber(pace[4] or rate), rate)
if signal == 'answered' or signal == 'throttled' or signal == 'denied' then -- somebody is there
  if pace[9] then
    put('failures', '0')
    put('failed_ids', '')
  end
  if outage then
    outage = false
    put('outage', '0')
    told.outage = false
  end
  if tonumber(pace[14] or 0) > 0 then
    put('held_until', '0')
    told.released = 'credentials'
  end
end
-- The ceiling in force, and how long it is trusted.
local limit, trusted_ms = rate, tonumber(pace[16] or rules.ceiling_ms)
local in_force = pace[5] and now - tonumber(pace[6] or 0) < trusted_ms
if in_force then
  limit = math.max(math.min(rate, tonumber(pace[5])), rules.floor)
end
if signal == 'answered' then
  if speed > limit then
    put('pace', exact(limit))
  elseif record.paced and speed < limit then
    -- A tenth of the gap and a hundredth of the limit: back within seconds, gently near the end.
    put('pace', exact(math.min(limit, speed + 0.1 * (limit - speed) + 0.01 * limit)))
  end
  put('passed_slowed', '1')
elseif signal == 'throttled' then
  if now - tonumber(pace[7] or 0) >= rules.decrease_every_ms then
    local slower = math.max(rules.floor, speed * rules.decrease)
    put('pace', exact(slower))
    put('slowed_at', int(now))
    -- Only a rate at which calls had passed says where the ceiling is; a storm in which none passes says nothing.
    if not pace[7] or pace[8] == '1' then
      -- A throttle well below the limit in force tells of a storm, not of a budget: its ceiling has yet to prove itself,
      -- and is trusted for twice as long each time that calls pass until it is forgotten and are throttled then.
      if (in_force or trusted_ms == rules.ceiling_ms) and speed < NEAR * limit then
        trusted_ms = math.min(UNPROVED_CEILING_MS, rules.ceiling_ms)
      elseif not in_force then
        trusted_ms = math.min(2 * trusted_ms, rules.ceiling_ms)
      end
      put('ceiling', exact(speed * rules.ceiling))
      put('ceiling_for', int(trusted_ms))
      put('ceiling_at', int(now))
      put('passed_slowed', '0')
    end
    told.pace = slower
  end
  if told_ms > 0 then
    put('not_before', int(math.max(now + told_ms, tonumber(pace[15] or 0))))
  end
elseif signal == 'failed' or signal == 'unreachable' then
  local failures = tonumber(pace[9] or 0) + 1
  local ids = pace[10] or ''
  if not string.find(ids, id, 1, true) and #ids < 37 * rules.outage_submissions then
    ids = ids .. id .. ' '
  end
  put('failures', int(failures))
  put('failed_ids', ids)
  local enough = failures >= rules.outage_failures and #ids >= 37 * rules.outage_submissions
  if not outage and (signal == 'unreachable' or enough) then
    outage = true
    put('outage', '1')
    put('probe_at', int(now + rules.probe_every_ms))
    put('probed', id)
    told.outage = true
  end
elseif signal == 'credentials' then
  put('held_until', int(now + rules.credentials_hold_ms))
  told.held = 'credentials'
elseif signal == 'denied' then
  told.held = 'denied'
end

-- ---- The submission.
local final
local retry = false
if proved_none and verdict ~= 'forwarded' then
  record.sent = record.before
end
if verdict == 'forwarded' then
  final = 'forwarded'
  put('passed', int(passed + 1))
elseif verdict == 'reject' then
  final = 'rejected'
elseif verdict == 'unknown' then
  final = 'unknown'
else
  retry = true
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
    if record.tries >= max_tries or now - record.first >= window_ms then
      retry = false
      final = record.sent and 'unknown' or 'rejected'
    end
  end
end
told.charged = charged
if retry and outage and not charged then
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
local late = final and not queued
local alike = 0
if final == 'rejected' then
  alike = 1
  if tags[4] == code then
    alike = tonumber(tags[3] or 0) + 1
  end
end
local pause = alike >= rules.like_rejections and tags[2] ~= '1'

-- ---- All is read and decided; now write.
if final then
  record.state = final
  record.settled = record.settled or now
  if job_id ~= '' then
    record.job_id, record.job_arn = job_id, job_arn
    redis.call('SET', KEYS[11], id, 'PX', int(alias_ms))
  end
  if final == 'forwarded' then
    rest = string.sub(rest, 1, record.identity) -- the request is Batch's now
  end
  value = pack_record(record, rest)
  if final == 'forwarded' then
    redis.call('SET', KEYS[1], value, 'PX', int(retention_ms))
  else
    redis.call('SET', KEYS[1], value) -- dead letters keep everything until a person has looked
  end
  if queued then
    put('queued', int(tonumber(pace[2] or 0) - 1))
    put('bytes', int(tonumber(pace[3] or 0) - record.size))
    if backlog > 1 then
      redis.call('ZADD', KEYS[6], int(backlog - 1), record.share)
    else
      redis.call('ZREM', KEYS[6], record.share)
      if shares > 1 then
        redis.call('HSET', KEYS[7], record.queue, int(shares - 1))
      else
        redis.call('HDEL', KEYS[7], record.queue)
      end
    end
    redis.call('ZREM', KEYS[10], id) -- a reclaimed one that an earlier attempt forwarded after all
    redis.call('ZREM', KEYS[4], id)
    redis.call('ZREM', KEYS[5], id)
    if start and redis.call('ZCARD', KEYS[10]) == 0 then
      redis.call('ZREM', KEYS[3], record.share)
    end
  end
  if final == 'rejected' then
    redis.call('HSET', KEYS[9], 'alike', int(alike), 'alike_code', code)
  elseif final == 'forwarded' and tags[3] then
    redis.call('HDEL', KEYS[9], 'alike', 'alike_code')
  end
else
  value = pack_record(record, rest)
  redis.call('SET', KEYS[1], value)
  local virtual, finish = tonumber(pace[1] or 0), tonumber(tags[1] or 0)
  local back_to = math.max(virtual, finish)
  if not charged and signal ~= 'denied' then -- a denied one keeps its cost: a share full of them must not stay first
    -- As if it had never been leased; but what others were served meanwhile is made up for by one turn, not more.
    back_to = math.max(virtual - 1 / tonumber(tags[7] or tags[6] or 1), finish - cost)
    redis.call('HSET', KEYS[9], 'finish', exact(back_to))
    if start then
      redis.call('ZADD', KEYS[3], exact(back_to), record.share)
    end
  end
  if delay_ms > 0 then
    redis.call('ZADD', KEYS[4], int(now + delay_ms), id)
  else
    redis.call('ZADD', KEYS[10], int(record.place), id)
    if not start and tags[2] ~= '1' then
      redis.call('ZADD', KEYS[3], exact(back_to), record.share)
    end
  end
  redis.call('ZREM', KEYS[5], id)
end
if signal == 'denied' then
  redis.call('HSET', KEYS[8], record.hold, int(now + rules.denied_hold_ms))
elseif was_held and signal == 'answered' then
  redis.call('HDEL', KEYS[8], record.hold)
  told.released = 'denied'
end
if pause then
  redis.call('HSET', KEYS[9], 'paused', '1', 'paused_because', 'rejections: ' .. code)
  redis.call('SADD', KEYS[12], record.share)
  redis.call('ZREM', KEYS[3], record.share)
  told.paused = true
end
if #set > 0 then
  redis.call('HSET', KEYS[2], unpack(set))
end
if final then
  if queued and backlog <= 1 and tags[2] ~= '1' and tags[5] ~= '1' and not pause then
    redis.call('PEXPIRE', KEYS[9], int(idle_ms))
  end
  redis.call('PUBLISH', channel, id)
end
return { late and 'late' or 'settled', value, cmsgpack.pack(told) }
