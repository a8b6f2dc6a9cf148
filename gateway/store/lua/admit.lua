#!lua
-- Accepts submissions, each once, or says what an earlier one with its id became, or which limits refuse it; answers a
-- list of verdicts, one a submission, in order.
--
-- KEYS  1 hash    the upstream: counters, virtual time, pace
--       2 zset    active shares, by start tag
--       3 zset    shares with a backlog, by how many are queued (ready, delayed or leased)
--       4 hash    queues, by how many of their shares have a backlog
--       and for each submission:
--       + string  the record
--       + hash    the share: tags, rate, overrides
--       + zset    the share's ready submissions, by place
-- ARGV  1 the upstream's cap (submissions)  2 the upstream's cap (bytes)  3 cap of shares a queue
--       4 channel to wake forwarders
--       and for each submission:
--       + id  + share  + queue  + priority  + weight  + rate (submissions a second, 0 = none)  + burst (submissions)
--       + the share's cap (submissions)  + identity  + request  + hold (what a denial by IAM would be about)
-- Returns {'known', record, place in line or -1}                  nothing written
--         {'refused', {name, quota, window ms, wait ms}, ...}     nothing written; a wait of -1 is unknown
--         {'queued', record, place in line, remaining or -1}      written
-- Guarantee: one id, one record; a refusal and a replay leave no trace and cost no rate; submissions of one call are
-- taken as if they had come one after another.
local total_cap, bytes_cap, shares_cap, channel = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local COMMON_KEYS, COMMON_ARGS, KEYS_EACH, ARGS_EACH = 4, 4, 3, 11

-- Every key is read before the first write: where a slot is just migrating, the script stops here or not at all.
for _, key in ipairs(KEYS) do
  redis.call('EXISTS', key)
end
local now_us = clock_us()
local upstream = redis.call('HMGET', KEYS[1], 'sequence', 'queued', 'bytes', 'virtual', 'accepting')
local sequence, queued, bytes = tonumber(upstream[1] or 0), tonumber(upstream[2] or 0), tonumber(upstream[3] or 0)
local virtual, accepting = tonumber(upstream[4] or 0), upstream[5] ~= '0'
local idle = redis.call('ZCARD', KEYS[2]) == 0
local woken = false

local function refusals(limits, backlog, shares, size)
  local found = {}
  if limits.room and limits.room < -0.5 then -- half a microsecond: a rounding, not a submission
    local window_ms = limits.burst * limits.step / 1000
    found[#found + 1] =
      { 'share-rate', int(limits.burst), int(window_ms), int(math.ceil(-limits.room / 1000)) }
  end
  if backlog >= limits.share_cap then
    found[#found + 1] = { 'share-backlog', int(limits.share_cap), '0', '-1' }
  end
  if backlog == 0 and shares >= shares_cap then
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
  return found
end

-- The share's limits as they hold now: operators' over the settings'; `tat` is the GCRA's theoretical arrival time.
local function limits_of(stored, rate, burst, share_cap)
  local limits = { share_cap = tonumber(stored[7] or share_cap), burst = tonumber(stored[6] or burst) }
  limits.rate = tonumber(stored[5] or rate)
  if limits.rate > 0 then
    limits.step = 1000000 / limits.rate
    -- What is owed is owed in submissions: another rate or burst holds at once, also for those sent before it.
    local owed = math.max(tonumber(stored[2] or 0) - now_us, 0) * tonumber(stored[8] or limits.rate) / limits.rate
    limits.tat = now_us + math.min(owed, limits.burst * limits.step) + limits.step
    limits.room = limits.burst * limits.step - (limits.tat - now_us)
  end
  return limits
end

local function admit(record_key, share_key, ready_key, arg)
  local id, share, queue, priority, weight = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4]
  local rate, burst, share_cap = ARGV[arg + 5], ARGV[arg + 6], ARGV[arg + 7]
  local identity, request, hold = ARGV[arg + 8], ARGV[arg + 9], ARGV[arg + 10]
  local known = redis.call('GET', record_key)
  if known then
    return { 'known', known, redis.call('ZRANK', ready_key, id) or -1 }
  end

  local stored = redis.call('HMGET', share_key, 'finish', 'tat', 'weight', 'paused', 'o_rate', 'o_burst',
    'o_max_queued', 'tat_rate')
  local backlog = tonumber(redis.call('ZSCORE', KEYS[3], share) or 0)
  local shares = tonumber(redis.call('HGET', KEYS[4], queue) or 0)
  local active = redis.call('ZSCORE', KEYS[2], share)
  local limits = limits_of(stored, rate, burst, share_cap)
  local size = #identity + #request
  local refused = refusals(limits, backlog, shares, size)
  if #refused > 0 then
    return { 'refused', unpack(refused) }
  end

  sequence, queued, bytes = sequence + 1, queued + 1, bytes + size
  local place = place_of(tonumber(priority), sequence)
  local record = {
    v = RECORD_VERSION,
    state = 'queued',
    at = math.floor(now_us / 1000),
    place = place,
    share = share,
    queue = queue,
    size = size,
    hold = hold,
    identity = #identity,
  }
  local value = pack_record(record, identity .. request)
  redis.call('SET', record_key, value)
  redis.call('ZADD', ready_key, int(place), id)
  redis.call('HSET', KEYS[1], 'sequence', int(sequence), 'queued', int(queued), 'bytes', int(bytes))
  redis.call('ZADD', KEYS[3], int(backlog + 1), share)
  if backlog == 0 then
    redis.call('HSET', KEYS[4], queue, int(shares + 1))
    redis.call('PERSIST', share_key)
  end
  if tonumber(stored[3]) ~= tonumber(weight) then
    redis.call('HSET', share_key, 'weight', weight)
  end
  if limits.tat then
    redis.call('HSET', share_key, 'tat', exact(limits.tat), 'tat_rate', exact(limits.rate))
  end
  if not active and stored[4] ~= '1' then
    redis.call('ZADD', KEYS[2], exact(math.max(virtual, tonumber(stored[1] or 0))), share)
    woken = idle
  end
  local remaining = limits.room and math.floor(limits.room / limits.step + 1e-6) or -1
  return { 'queued', value, redis.call('ZRANK', ready_key, id), remaining }
end

local verdicts = {}
for number = 0, (#KEYS - COMMON_KEYS) / KEYS_EACH - 1 do
  local key, arg = COMMON_KEYS + number * KEYS_EACH, COMMON_ARGS + number * ARGS_EACH
  verdicts[number + 1] = admit(KEYS[key + 1], KEYS[key + 2], KEYS[key + 3], arg + 1)
end
if woken then
  redis.call('PUBLISH', channel, '') -- somebody may sleep where nothing was ready
end
return verdicts
