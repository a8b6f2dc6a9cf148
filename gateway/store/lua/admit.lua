#!lua
-- Accepts submissions, each once, or says what an earlier one with its id became, or which limits refuse it; answers a
-- list of verdicts, one a submission, in order.
--
-- KEYS  1 hash    the upstream: counters, virtual time, pace
--       2 zset    active shares, by start tag
--       3 zset    delayed submissions, by when they are due (ms)
--       4 zset    queued submissions with a deadline, by deadline (ms)
--       5 set     namespaces that have an index
--       6 hash    denied (queue, role) pairs, by when they are tried again (ms)
--       7 zset    leased submissions, by when the lease ends (ms)
--       and for each submission:
--       + string  the record
--       + hash    the share: tags, rate, overrides
--       + zset    the share's ready submissions, by place
--       + zset    the index of its namespace, by when they were accepted (ms)
-- ARGV  1 prefix of the upstream's keys  2 the upstream's cap (submissions)  3 the upstream's cap (bytes)
--       4 cap of shares a queue  5 channel to wake forwarders  6 rate (calls a second)  7 burst (calls)
--       and for each submission:
--       + id  + share  + queue  + priority  + weight  + rate (submissions a second, 0 = none)  + burst (submissions)
--       + the share's cap (submissions)  + over its rate: reject or delay  + identity  + request
--       + hold (what a denial by IAM would be about)  + namespace  + deadline (ms, empty for none)
--       + when it would go to Batch (ms, empty where nobody can say)  + at which position that is so  + ms a position
-- Returns {'known', record, place in line or -1}                  nothing written
--         {'refused', {name, quota, window ms, wait ms}, ...}     nothing written; a wait of -1 is unknown
--         {'queued', accepted ms, place in line, remaining or -1, due ms or 0, 1 if it goes at once}  written; due: delayed until
-- Guarantee: one id, one record; a refusal and a replay leave no trace and cost no rate; submissions of one call are
-- taken as if they had come one after another.
local prefix, total_cap, bytes_cap = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local shares_cap, channel = tonumber(ARGV[4]), ARGV[5]
local COMMON_KEYS, COMMON_ARGS, KEYS_EACH, ARGS_EACH = 7, 7, 4, 17

-- Every key is read before the first write: where a slot is just migrating, the script stops here or not at all.
for _, key in ipairs(KEYS) do
  redis.call('EXISTS', key)
end
local now_us = clock_us()
local now = math.floor(now_us / 1000)
local upstream = redis.call('HMGET', KEYS[1], 'sequence', 'queued', 'bytes', 'accepting', 'version', 'failures')
refuse_newer(upstream[5])
local sequence, queued, bytes = tonumber(upstream[1] or 0), tonumber(upstream[2] or 0), tonumber(upstream[3] or 0)
local accepting = upstream[4] ~= '0'
local idle = redis.call('ZCARD', KEYS[2]) == 0
local _, closed = closed_for(read_gate(KEYS[1], tonumber(ARGV[6])), tonumber(ARGV[7]), now_us)
local woken, written = false, false

-- Of one that has just brought its share into the fair order: whether the next call is this one's and will be answered
-- soon. It is alone there, nothing keeps a call from going now, none is under way unanswered, the last one did not fail.
local function goes_at_once(hold)
  return not closed
    and tonumber(upstream[6] or 0) == 0
    and redis.call('ZCARD', KEYS[7]) == 0
    and redis.call('ZCARD', KEYS[2]) == 1
    and tonumber(redis.call('HGET', KEYS[6], hold) or 0) <= now
end

-- Why it cannot be taken. What is only over its share's rate is taken later where the share delays: `due` says when.
local function refusals(limits, standing, size, deadline, expected_at)
  local found, due = {}, nil
  if limits.room and limits.room < -0.5 then -- half a microsecond: a rounding, not a submission
    local wait_ms = math.ceil(-limits.room / 1000)
    if limits.over == 'delay' then
      due = now + wait_ms
    else
      found[#found + 1] = { 'share-rate', int(limits.burst), int(limits.burst * limits.step / 1000), int(wait_ms) }
    end
  end
  if standing.backlog >= limits.share_cap then
    found[#found + 1] = { 'share-backlog', int(limits.share_cap), '0', '-1' }
  end
  if standing.backlog == 0 and standing.shares >= shares_cap then
    found[#found + 1] = { 'queue-shares', int(shares_cap), '0', '-1' }
  end
  if queued >= total_cap then
    found[#found + 1] = { 'backlog', int(total_cap), '0', '-1' }
  end
  if bytes + size > bytes_cap then
    found[#found + 1] = { 'backlog-bytes', int(bytes_cap), '0', '-1' }
  end
  if not accepting then
    found[#found + 1] = { 'not-accepting', '0', '0', '-1' }
  end
  local earliest = deadline and math.max(now, due or now, expected_at())
  if deadline and earliest > deadline then
    found[#found + 1] = { 'deadline', '0', '0', int(earliest - deadline) }
  end
  return found, due
end

-- The share's limits as they hold now: operators' over the settings'; `tat` is the GCRA's theoretical arrival time.
local function limits_of(stored, rate, burst, share_cap, over)
  local limits = { share_cap = tonumber(stored[5] or share_cap), burst = tonumber(stored[4] or burst) }
  limits.rate, limits.over = tonumber(stored[3] or rate), stored[7] or over
  if limits.rate > 0 then
    limits.step = 1000000 / limits.rate
    -- What is owed is owed in submissions: another rate or burst holds at once, also for those sent before it. More
    -- than the burst is owed where some were put off, or the burst is smaller now: so long nothing else conforms.
    local owed = math.max(tonumber(stored[1] or 0) - now_us, 0) * tonumber(stored[6] or limits.rate) / limits.rate
    limits.tat = now_us + owed + limits.step
    limits.room = limits.burst * limits.step - (limits.tat - now_us)
  end
  return limits
end

local function admit(key, arg)
  local record_key, share_key, ready_key, index_key = KEYS[key + 1], KEYS[key + 2], KEYS[key + 3], KEYS[key + 4]
  local id, share, queue, priority = ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], tonumber(ARGV[arg + 4])
  local weight, rate, burst, share_cap = ARGV[arg + 5], ARGV[arg + 6], ARGV[arg + 7], ARGV[arg + 8]
  local over, identity, request, hold = ARGV[arg + 9], ARGV[arg + 10], ARGV[arg + 11], ARGV[arg + 12]
  local namespace, deadline = ARGV[arg + 13], tonumber(ARGV[arg + 14])
  local known = redis.call('GET', record_key)
  if known then
    return { 'known', known, redis.call('ZRANK', ready_key, id) or -1 }
  end

  local stored = redis.call('HMGET', share_key, 'tat', 'weight', 'o_rate', 'o_burst', 'o_max_queued', 'tat_rate',
    'o_over_limit')
  local record = {
    v = VERSION_WRITTEN,
    state = 'queued',
    at = now,
    place = place_of(priority, sequence + 1),
    share = share,
    queue = queue,
    size = #identity + #request,
    hold = hold,
    identity = #identity,
    deadline = deadline,
  }
  local standing = standing_of(prefix, id, record)
  local limits = limits_of(stored, rate, burst, share_cap, over)
  -- The forecast was made for another position, if others have come since: those of this call among them.
  local function expected_at()
    local expected, position, each = tonumber(ARGV[arg + 15]), tonumber(ARGV[arg + 16]), tonumber(ARGV[arg + 17])
    local before = redis.call('ZCOUNT', ready_key, '-inf', '(' .. int(record.place))
    return expected and expected + (before + 1 - position) * each or now
  end
  local refused, due = refusals(limits, standing, record.size, deadline, expected_at)
  if #refused > 0 then
    return { 'refused', unpack(refused) }
  end
  local indexed = redis.call('EXISTS', index_key) == 1

  written = true
  sequence, queued, bytes = sequence + 1, queued + 1, bytes + record.size
  redis.call('SET', record_key, pack_record(record, identity .. request))
  redis.call('HSET', KEYS[1], 'sequence', int(sequence))
  count_in(standing)
  redis.call('ZADD', index_key, int(now), id)
  if not indexed then
    redis.call('SADD', KEYS[5], namespace)
  end
  if deadline then
    redis.call('ZADD', KEYS[4], int(deadline), id)
  end
  if tonumber(stored[2]) ~= tonumber(weight) then
    redis.call('HSET', share_key, 'weight', weight)
  end
  if limits.tat then
    redis.call('HSET', share_key, 'tat', exact(limits.tat), 'tat_rate', exact(limits.rate))
  end
  local remaining = limits.room and math.max(0, math.floor(limits.room / limits.step + 1e-6)) or -1
  if due then
    redis.call('ZADD', KEYS[3], int(due), id)
    redis.call('ZADD', standing.held_key, int(due), id)
    local before = redis.call('ZCOUNT', ready_key, '-inf', '(' .. int(record.place)) + standing.held
    return { 'queued', now, before, remaining, due, 0 }
  end
  local stands_first = stand_ready(standing, record.place, math.max(standing.virtual, standing.finish))
  if stands_first then
    woken = idle
  end
  local at_once = stands_first and goes_at_once(hold) and 1 or 0
  return { 'queued', now, redis.call('ZRANK', ready_key, id), remaining, 0, at_once }
end

local verdicts = {}
for number = 0, (#KEYS - COMMON_KEYS) / KEYS_EACH - 1 do
  verdicts[number + 1] = admit(COMMON_KEYS + number * KEYS_EACH, COMMON_ARGS + number * ARGS_EACH)
end
if written and tonumber(upstream[5] or 0) < VERSION_WRITTEN then
  redis.call('HSET', KEYS[1], 'version', VERSION_WRITTEN)
end
if woken then
  redis.call('PUBLISH', channel, '') -- somebody may sleep where nothing was ready
end
return verdicts
