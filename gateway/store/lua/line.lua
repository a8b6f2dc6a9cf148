
-- How a submission enters and leaves the backlog. A queued one stands in exactly one place: in its share's `ready`, in
-- `delayed`, in `leased`, or in `errands`, where it waits for a look at Batch's jobs and is not submitted meanwhile.
-- Those of `delayed` that wait for their share's rate are in the share's `held` too, so that a new rate can reach them.
-- `errands` also has final ones that Batch is owed a termination or an update for. What is final and has no job of
-- Batch's is in its queue's `ended`, and `endings` names the queues that have one. Each function says which keys it
-- writes; whoever calls it has read them all before: `standing_of` does.

-- A job that is to end costs money while it waits: it goes before every update of the last hour.
local AHEAD_MS = 3600000

-- What Batch keeps no copy of stays: dead letters wait for a person with all that was asked.
local DEAD_LETTERS = { rejected = true, unknown = true }

-- Reads the lists that a record may enter or leave with its end.
local function read_ended(prefix, record)
  redis.call('ZCARD', prefix .. 'ended:' .. record.queue)
  redis.call('SCARD', prefix .. 'endings')
end

-- Reads all that entering or leaving the backlog depends on; `prefix` is that of the upstream's keys.
local function standing_of(prefix, id, record)
  local share = record.share
  local standing = {
    prefix = prefix,
    id = id,
    share = share,
    queue = record.queue,
    size = record.size,
    record_key = prefix .. 'sub:' .. id,
    ready_key = prefix .. 'ready:' .. share,
    held_key = prefix .. 'held:' .. share,
    waiting_key = prefix .. 'waiting:' .. share,
    at = record.at,
    share_key = prefix .. 'share:' .. share,
  }
  local tags = redis.call('HMGET', standing.share_key, 'finish', 'paused', 'overridden', 'weight', 'o_weight')
  standing.finish, standing.paused, standing.overridden = tonumber(tags[1] or 0), tags[2] == '1', tags[3] == '1'
  standing.weight = tonumber(tags[5] or tags[4] or 1)
  standing.virtual = tonumber(redis.call('HGET', prefix .. 'upstream', 'virtual') or 0)
  standing.start = redis.call('ZSCORE', prefix .. 'active', share)
  standing.backlog = tonumber(redis.call('ZSCORE', prefix .. 'backlog', share) or 0)
  standing.shares = tonumber(redis.call('HGET', prefix .. 'queues', record.queue) or 0)
  standing.ready = redis.call('ZCARD', standing.ready_key)
  standing.in_ready = redis.call('ZSCORE', standing.ready_key, id)
  standing.held = redis.call('ZCARD', standing.held_key)
  redis.call('ZCARD', standing.waiting_key)
  for _, name in ipairs({ 'delayed', 'leased', 'errands', 'deadlines' }) do
    redis.call('ZCARD', prefix .. name)
  end
  read_ended(prefix, record)
  return standing
end

-- Counts a submission in: upstream, backlog, queues, share, waiting. The caller gives it a place.
local function count_in(standing)
  redis.call('HINCRBY', standing.prefix .. 'upstream', 'queued', 1)
  redis.call('HINCRBY', standing.prefix .. 'upstream', 'bytes', standing.size)
  redis.call('ZINCRBY', standing.prefix .. 'backlog', 1, standing.share)
  redis.call('ZADD', standing.waiting_key, int(standing.at), standing.id)
  if standing.backlog == 0 then
    redis.call('HINCRBY', standing.prefix .. 'queues', standing.queue, 1)
    redis.call('PERSIST', standing.share_key)
  end
end

-- Puts it in its share's line, and the share into the fair order: ready, active. Answers whether it woke the share.
local function stand_ready(standing, place, start)
  redis.call('ZADD', standing.ready_key, int(place), standing.id)
  if standing.start or standing.paused then
    return false
  end
  redis.call('ZADD', standing.prefix .. 'active', exact(start), standing.share)
  return true
end

-- Takes it out of every place where a queued one stands: ready, active, delayed and held, leased, errands.
local function stand_nowhere(standing)
  redis.call('ZREM', standing.ready_key, standing.id)
  redis.call('ZREM', standing.held_key, standing.id)
  for _, name in ipairs({ 'delayed', 'leased', 'errands' }) do
    redis.call('ZREM', standing.prefix .. name, standing.id)
  end
  if standing.in_ready and standing.ready == 1 then
    redis.call('ZREM', standing.prefix .. 'active', standing.share)
  end
end

-- Counts it out, once it stands nowhere. An idle share is forgotten after a while.
local function count_out(standing, idle_ms)
  redis.call('ZREM', standing.prefix .. 'deadlines', standing.id)
  redis.call('ZREM', standing.waiting_key, standing.id)
  redis.call('HINCRBY', standing.prefix .. 'upstream', 'queued', -1)
  redis.call('HINCRBY', standing.prefix .. 'upstream', 'bytes', -standing.size)
  if standing.backlog > 1 then
    redis.call('ZADD', standing.prefix .. 'backlog', int(standing.backlog - 1), standing.share)
    return
  end
  redis.call('ZREM', standing.prefix .. 'backlog', standing.share)
  if standing.shares > 1 then
    redis.call('HSET', standing.prefix .. 'queues', standing.queue, int(standing.shares - 1))
  else
    redis.call('HDEL', standing.prefix .. 'queues', standing.queue)
  end
  if not standing.paused and not standing.overridden then
    redis.call('PEXPIRE', standing.share_key, int(idle_ms))
  end
end

-- Sets a submission aside until somebody has looked for its job: it may be in Batch, and is not to be submitted again.
local function stand_for_a_look(standing, record, due)
  record.look = { looks = 0 }
  stand_nowhere(standing)
  redis.call('ZADD', standing.prefix .. 'errands', int(due), standing.id)
end

-- Remembers which job a submission has, longer than its record: both ways, and the first one stays. `job_key` is the
-- job's own. Writes alias.
local function remember_job(prefix, id, job_key, job_id, alias_ms)
  redis.call('SET', job_key, id, 'PX', int(alias_ms), 'NX')
  redis.call('SET', prefix .. 'alias:' .. id, job_id, 'PX', int(alias_ms))
end

-- How one that is to end early ends, once no call can have made a job.
local function early_end(cancel)
  return cancel.by == 'deadline' and 'expired' or 'canceled'
end

-- What Batch is owed for a job that it has: nothing, a termination, or the priority that was changed meanwhile.
local function owe(record)
  if record.cancel then
    record.terminate = true
  elseif record.asked_place and record.asked_place ~= record.place then
    record.update = true
  end
end

-- Whether a person has still to look at it: with all that was asked, for as long as that takes.
local function is_dead_letter(record)
  return DEAD_LETTERS[record.state] and not record.job_id and not record.closed
end

-- Lists it while it is final and has no job. The record says whether it is listed: a release that knows no such lists
-- carries the word along and leaves the entry, so that the two agree whoever ends, redrives or forwards it. Writes
-- ended, endings.
local function list_ended(prefix, id, record)
  local key = prefix .. 'ended:' .. record.queue
  if record.state ~= 'queued' and not record.job_id then
    record.ended = true
    redis.call('ZADD', key, int(record.at), id)
    redis.call('SADD', prefix .. 'endings', record.queue)
  elseif record.ended then
    record.ended = nil
    redis.call('ZREM', key, id)
    if redis.call('ZCARD', key) == 0 then
      redis.call('SREM', prefix .. 'endings', record.queue)
    end
  end
end

-- Writes a final record: the request goes with it, but a dead letter's. It expires, but while Batch is owed something,
-- and dead letters never. Writes the record, errands, ended and endings.
local function write_final(prefix, id, record, rest, now, retention_ms)
  record.settled = record.settled or now
  record.look, record.errand, record.errand_tries = nil, nil, nil
  local key, owed = prefix .. 'sub:' .. id, record.terminate or record.update
  local kept = is_dead_letter(record)
  if not kept then
    rest = string.sub(rest, 1, record.identity)
  end
  list_ended(prefix, id, record)
  local value = pack_record(record, rest)
  if owed or kept then
    redis.call('SET', key, value)
  else
    redis.call('SET', key, value, 'PX', int(retention_ms))
  end
  if owed then
    redis.call('ZADD', prefix .. 'errands', int(record.terminate and now - AHEAD_MS or now), id)
  end
  return value
end
