#!lua
-- Accepts a submission once, or says what an earlier one with its id became, or which limits refuse it.
--
-- KEYS  1 string  the record
--       2 hash    the upstream: counters, virtual time, pace
--       3 hash    the share: tags, rate, overrides
--       4 zset    the share's ready submissions, by place
--       5 zset    active shares, by start tag
--       6 zset    shares with a backlog, by how many are queued (ready, delayed or leased)
--       7 hash    queues, by how many of their shares have a backlog
-- ARGV  1 id  2 share  3 queue  4 priority  5 weight  6 rate (submissions a second, 0 = none)  7 burst (submissions)
--       8 the share's cap (submissions)  9 the upstream's cap (submissions)  10 the upstream's cap (bytes)
--       11 cap of shares a queue  12 identity  13 request  14 hold (what a denial by IAM would be about)
--       15 channel to wake forwarders
-- Returns {'known', record, place in line or -1}                  nothing written
--         {'refused', {name, quota, window ms, wait ms}, ...}     nothing written; a wait of -1 is unknown
--         {'queued', record, place in line, remaining or -1}      written
-- Guarantee: one id, one record; a refusal and a replay leave no trace and cost no rate.
local id, share, queue, priority, weight = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local rate, burst, share_cap = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local total_cap, bytes_cap, shares_cap = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local identity, request, hold, channel = ARGV[12], ARGV[13], ARGV[14], ARGV[15]

local known, _, value = read_record(KEYS[1])
if known then
  local rank = redis.call('ZRANK', KEYS[4], id)
  return { 'known', value, rank or -1 }
end

local now_us = clock_us()
local upstream = redis.call('HMGET', KEYS[2], 'sequence', 'queued', 'bytes', 'virtual', 'accepting')
local stored = redis.call('HMGET', KEYS[3], 'finish', 'tat', 'weight', 'paused', 'o_rate', 'o_burst', 'o_max_queued',
  'tat_rate')
local backlog = tonumber(redis.call('ZSCORE', KEYS[6], share) or 0)
local shares = tonumber(redis.call('HGET', KEYS[7], queue) or 0)
local active = redis.call('ZSCORE', KEYS[5], share)
local others_active = redis.call('ZCARD', KEYS[5]) > 0
redis.call('ZCARD', KEYS[4])
local sequence, queued, bytes = tonumber(upstream[1] or 0), tonumber(upstream[2] or 0), tonumber(upstream[3] or 0)
rate = tonumber(stored[5] or rate)
burst = tonumber(stored[6] or burst)
share_cap = tonumber(stored[7] or share_cap)

local refused = {}
local tat, remaining
if rate > 0 then
  local step = 1000000 / rate
  -- What is owed is owed in submissions: another rate or burst holds at once, also for those sent before it.
  local owed = math.max(tonumber(stored[2] or 0) - now_us, 0) * tonumber(stored[8] or rate) / rate
  tat = now_us + math.min(owed, burst * step) + step
  local room = burst * step - (tat - now_us)
  if room < -0.5 then -- half a microsecond: a rounding, not a submission
    refused[#refused + 1] = { 'share-rate', int(burst), int(burst * step / 1000), int(math.ceil(-room / 1000)) }
  end
  remaining = math.floor(room / step + 1e-6)
end
if backlog >= share_cap then
  refused[#refused + 1] = { 'share-backlog', int(share_cap), '0', '-1' }
end
if backlog == 0 and shares >= shares_cap then
  refused[#refused + 1] = { 'queue-shares', int(shares_cap), '0', '-1' }
end
if queued >= total_cap then
  refused[#refused + 1] = { 'backlog', int(total_cap), '0', '-1' }
end
local size = #identity + #request
if bytes + size > bytes_cap then
  refused[#refused + 1] = { 'backlog-bytes', int(bytes_cap), '0', '-1' }
end
if upstream[5] == '0' then
  refused[#refused + 1] = { 'not-accepting', '0', '0', '-1' }
end
if #refused > 0 then
  return { 'refused', unpack(refused) }
end

sequence = sequence + 1
local place = place_of(priority, sequence)
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
value = pack_record(record, identity .. request)
redis.call('SET', KEYS[1], value)
redis.call('ZADD', KEYS[4], int(place), id)
redis.call('HSET', KEYS[2], 'sequence', int(sequence), 'queued', int(queued + 1), 'bytes', int(bytes + size))
redis.call('ZADD', KEYS[6], int(backlog + 1), share)
if backlog == 0 then
  redis.call('HSET', KEYS[7], queue, int(shares + 1))
  redis.call('PERSIST', KEYS[3])
end
if tonumber(stored[3]) ~= weight then
  redis.call('HSET', KEYS[3], 'weight', exact(weight))
end
if tat then
  redis.call('HSET', KEYS[3], 'tat', exact(tat), 'tat_rate', exact(rate))
end
if not active and stored[4] ~= '1' then
  local start = math.max(tonumber(upstream[4] or 0), tonumber(stored[1] or 0))
  redis.call('ZADD', KEYS[5], exact(start), share)
  if not others_active then
    redis.call('PUBLISH', channel, id)
  end
end
return { 'queued', value, redis.call('ZRANK', KEYS[4], id), remaining or -1 }
