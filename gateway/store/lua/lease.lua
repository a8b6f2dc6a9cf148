#!lua flags=allow-oom
-- Hands out the next submission in fair order, if the pace allows a call now; else says how long to wait.
--
-- KEYS  1 hash  the upstream: counters, virtual time, pace
--       2 zset  active shares, by start tag
--       3 zset  delayed submissions, by when they are due (ms)
--       4 zset  leased submissions, by when the lease ends (ms)
--       5 hash  denied (queue, role) pairs, by when they are tried again (ms)
--       6 zset  queued submissions with a deadline, by deadline (ms)
-- ARGV  1 prefix of the upstream's keys  2 length of a lease (ms)  3 rate (calls a second)  4 burst (calls)
--       5 lateness that the timetable forgives (ms)  6 interval of probes (ms)  7 time that a denied pair's probe may
--       take before another is tried (ms)
--       8 how many records are looked at for one to lease
-- Returns {'due'}                                  nothing written: reclaim first
--         {'wait', ms or -1, reason}               nothing written; -1: until something arrives
--         {'aside'}                                denied ones were put aside: ask again
--         {'leased', id, record, number, 1 if probing}  written
-- Guarantee: a lease's number is larger than any before; `sent` is set before anybody can call.
local prefix, lease_ms, rate, burst = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lateness_us, probe_ms, hold_ms = tonumber(ARGV[5]) * 1000, tonumber(ARGV[6]), tonumber(ARGV[7])
local scan = tonumber(ARGV[8])

local now_us = clock_us()
local now = math.floor(now_us / 1000)

-- What is due must come back first: it may be ahead of all else. Reclaiming is a script of its own, so that this one
-- has read every key that it writes.
local next_due = -1
for _, key in ipairs({ KEYS[3], KEYS[4], KEYS[6] }) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] then
    local due = tonumber(first[2])
    if due <= now then
      return { 'due' }
    end
    if next_due < 0 or due - now < next_due then
      next_due = due - now
    end
  end
end

local upstream = redis.call('HMGET', KEYS[1], 'sequence', 'virtual', 'probed', 'version')
refuse_newer(upstream[4])
local gate = read_gate(KEYS[1], rate)
local wait_ms, reason = closed_for(gate, burst, now_us)
if reason == 'stopped' then
  return { 'wait', -1, reason }
end
if redis.call('ZCARD', KEYS[2]) == 0 then
  return { 'wait', next_due, 'idle' }
end
if reason then
  return { 'wait', wait_ms, reason }
end
local step_us, slot, outage = gate.step_us, gate.slot, gate.outage
local probed = outage and upstream[3]

-- Choose: shares by start tag, in the share by place. Passed over: what was the last probe, so that one bad submission
-- cannot make an outage last, and whatever IAM denies now.
local denied, outdated = {}, {}
local function denied_until(hold)
  denied[hold] = denied[hold] or tonumber(redis.call('HGET', KEYS[5], hold) or 0)
  return denied[hold]
end
-- A few by chance, for callers may name any number of roles: what nobody asks for any more goes after an hour.
local sample = redis.call('HRANDFIELD', KEYS[5], 4, 'WITHVALUES')
for position = 1, #sample, 2 do
  if tonumber(sample[position + 1]) < now - 3600000 then
    outdated[#outdated + 1] = sample[position]
  end
end
local chosen, fallback
local aside, empty, lost = {}, {}, {}
for _, share in ipairs(redis.call('ZRANGE', KEYS[2], 0, scan - 1)) do
  local ids = redis.call('ZRANGE', prefix .. 'ready:' .. share, 0, scan - 1)
  if #ids == 0 then
    empty[#empty + 1] = share
  end
  for _, id in ipairs(ids) do
    scan = scan - 1
    local record, rest = read_record(prefix .. 'sub:' .. id)
    local candidate = { id = id, share = share, record = record, rest = rest }
    if not record then
      lost[#lost + 1] = candidate
    elseif denied_until(record.hold) > now then
      aside[#aside + 1] = candidate
    elseif id == probed then
      fallback = fallback or candidate
    else
      chosen = candidate
      break
    end
    if scan <= 0 then
      break
    end
  end
  if chosen or scan <= 0 then
    break
  end
end
chosen = chosen or fallback

local touched = {}
local function left_in(share)
  touched[share] = touched[share] or redis.call('ZCARD', prefix .. 'ready:' .. share)
  return touched[share]
end
for _, candidate in ipairs(aside) do
  left_in(candidate.share)
end
local start, tags, left
if chosen then
  start = tonumber(redis.call('ZSCORE', KEYS[2], chosen.share))
  tags = redis.call('HMGET', prefix .. 'share:' .. chosen.share, 'weight', 'o_weight')
  left = left_in(chosen.share)
end

-- All is read; now write.
for _, share in ipairs(empty) do
  redis.call('ZREM', KEYS[2], share)
end
for _, field in ipairs(outdated) do
  redis.call('HDEL', KEYS[5], field)
end
for _, candidate in ipairs(lost) do -- their records are gone, by no doing of ours: the others must go on
  redis.call('ZREM', prefix .. 'ready:' .. candidate.share, candidate.id)
end
for _, candidate in ipairs(aside) do
  redis.call('ZADD', KEYS[3], int(denied[candidate.record.hold]), candidate.id)
  redis.call('ZREM', prefix .. 'ready:' .. candidate.share, candidate.id)
  touched[candidate.share] = touched[candidate.share] - 1
  if touched[candidate.share] == 0 then
    redis.call('ZREM', KEYS[2], candidate.share)
  end
end
if not chosen then
  return { 'aside' }
end
left = touched[chosen.share]

local number = tonumber(upstream[1] or 0) + 1
local virtual = math.max(tonumber(upstream[2] or 0), start)
local cost = 1 / tonumber(tags[2] or tags[1] or 1)
local finish = start + cost
local late = now_us - slot
local record = chosen.record
record.lease = number
record.leased_at = now
record.before = record.sent
record.sent_at = record.sent and record.sent_at or now -- no job of it can be older
record.sent = true
record.paced = late < step_us -- the slot before had just ended: it is the budget that limits, so the pace may grow
record.probe = outage
record.cost = cost -- what an uncharged return gives back, whatever the weight is by then
local value = pack_record(record, chosen.rest)
redis.call('SET', prefix .. 'sub:' .. chosen.id, value)
redis.call('ZADD', KEYS[4], int(now + lease_ms), chosen.id)
redis.call('ZREM', prefix .. 'ready:' .. chosen.share, chosen.id)
redis.call('HSET', prefix .. 'share:' .. chosen.share, 'finish', exact(finish))
if left > 1 then
  redis.call('ZADD', KEYS[2], exact(finish), chosen.share)
else
  redis.call('ZREM', KEYS[2], chosen.share)
end
-- A call that is a little late keeps to the timetable, so that lateness costs no calls; a pause starts a new one.
local base = slot
if late > lateness_us then
  base = math.max(slot, now_us)
end
redis.call('HSET', KEYS[1], 'sequence', int(number), 'virtual', exact(virtual), 'slot', exact(base + step_us))
if outage then
  redis.call('HSET', KEYS[1], 'probe_at', int(now + probe_ms), 'probed', chosen.id)
end
if denied_until(record.hold) > 0 then
  redis.call('HSET', KEYS[5], record.hold, int(now + hold_ms)) -- this one is the probe; the others wait for it
end
return { 'leased', chosen.id, value, number, outage and 1 or 0 }
