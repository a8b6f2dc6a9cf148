#!lua flags=allow-oom
-- Brings back to their places submissions whose delay is over and those whose lease ended without an answer.
--
-- KEYS  1 hash  the upstream: counters, virtual time, pace
--       2 zset  active shares, by start tag
--       3 zset  delayed submissions, by when they are due (ms)
--       4 zset  leased submissions, by when the lease ends (ms)
-- ARGV  1 prefix of the upstream's keys  2 how many of each kind at the most
-- Returns {'reclaimed', {id whose lease ended, ...}}  written
-- Guarantee: an ended lease counts as a charged try that may have made a job, for its process may have called.
local prefix, most = ARGV[1], tonumber(ARGV[2])
local now = math.floor(clock_us() / 1000)

local virtual = tonumber(redis.call('HGET', KEYS[1], 'virtual') or 0)
local back, shares = {}, {}
for position, key in ipairs({ KEYS[3], KEYS[4] }) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, most)) do
    local record, rest = read_record(prefix .. 'sub:' .. id)
    back[#back + 1] = { id = id, from = key, record = record, rest = rest, ended = position == 2 }
    if record and not shares[record.share] then
      redis.call('ZCARD', prefix .. 'ready:' .. record.share)
      local tags = redis.call('HMGET', prefix .. 'share:' .. record.share, 'finish', 'paused')
      shares[record.share] = {
        finish = tonumber(tags[1] or 0),
        paused = tags[2] == '1',
        active = redis.call('ZSCORE', KEYS[2], record.share),
      }
    end
  end
end

local ended = {}
for _, item in ipairs(back) do
  local record = item.record
  if record and record.state == 'queued' then
    if item.ended then
      add_attempt(record, record.leased_at, 'lease_ended')
      record.tries = (record.tries or 0) + 1
      record.first = record.first or record.leased_at
      record.lease, record.before, record.cost = nil, nil, nil
      redis.call('SET', prefix .. 'sub:' .. item.id, pack_record(record, item.rest))
      ended[#ended + 1] = item.id
    end
    redis.call('ZADD', prefix .. 'ready:' .. record.share, int(record.place), item.id)
    local share = shares[record.share]
    if not share.active and not share.paused then
      redis.call('ZADD', KEYS[2], exact(math.max(virtual, share.finish)), record.share)
      share.active = true
    end
  end
  redis.call('ZREM', item.from, item.id)
end
return { 'reclaimed', ended }
