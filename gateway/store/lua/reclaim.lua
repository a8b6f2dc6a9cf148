#!lua flags=allow-oom
-- Brings back submissions whose delay is over and those whose lease ended without an answer, and ends those whose
-- deadline has come.
--
-- KEYS  1 hash  the upstream: counters, virtual time, pace
--       2 zset  delayed submissions, by when they are due (ms)
--       3 zset  leased submissions, by when the lease ends (ms)
--       4 zset  queued submissions with a deadline, by deadline (ms)
-- ARGV  1 prefix of the upstream's keys  2 how many of each kind at the most  3 time until the first look (ms)
--       4 retention of the record (ms)  5 time that an idle share is remembered (ms)  6 channel for ends
-- Returns {'reclaimed', {id whose lease ended, ...}, {id, record that expired, ...}}  written
-- Guarantee: an ended lease counts as a charged try that may have made a job, for its process may have called; what may
-- be in Batch does not expire but is looked for.
local prefix, most, look_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local retention_ms, idle_ms, channel = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local now = math.floor(clock_us() / 1000)

refuse_newer(redis.call('HGET', KEYS[1], 'version'))
local found, items = {}, {}
for position, reason in ipairs({ 'due', 'ended', 'expired' }) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[position + 1], '-inf', now, 'LIMIT', 0, most)) do
    if not found[id] then
      local record, rest = read_record(prefix .. 'sub:' .. id)
      found[id] = { id = id, record = record, rest = rest }
      items[#items + 1] = found[id]
      if record then
        standing_of(prefix, id, record)
      end
    end
    found[id][reason] = true
  end
end

local ended, expired = {}, {}
for _, item in ipairs(items) do
  local id, record = item.id, item.record
  if item.expired then
    redis.call('ZREM', KEYS[4], id)
  end
  if not record or record.state ~= 'queued' then -- records that are gone, by no doing of ours, must not stop the others
    redis.call('ZREM', KEYS[2], id)
    redis.call('ZREM', KEYS[3], id)
  else
    local standing = standing_of(prefix, id, record) -- those before it may be of its share
    if item.ended then
      add_attempt(record, record.leased_at, 'lease_ended')
      record.tries = (record.tries or 0) + 1
      record.first = record.first or record.leased_at
      record.lease, record.before, record.cost = nil, nil, nil
      ended[#ended + 1] = id
    end
    if item.expired then
      record.cancel = record.cancel or { by = 'deadline', at = now }
    end
    if record.cancel and not record.lease and not record.sent then
      record.state = early_end(record.cancel)
      stand_nowhere(standing)
      count_out(standing, idle_ms)
      expired[#expired + 1] = id
      expired[#expired + 1] = write_final(prefix, id, record, item.rest, now, retention_ms)
      redis.call('PUBLISH', channel, id)
    else
      if record.cancel and not record.lease and not record.look then
        stand_for_a_look(standing, record, now + look_ms)
      elseif not record.lease and not record.look then
        stand_ready(standing, record.place, math.max(standing.virtual, standing.finish))
        redis.call('ZREM', KEYS[2], id)
        redis.call('ZREM', KEYS[3], id)
        redis.call('ZREM', standing.held_key, id)
      end
      if item.ended or item.expired then
        redis.call('SET', standing.record_key, pack_record(record, item.rest))
      end
    end
  end
end
return { 'reclaimed', ended, expired }
