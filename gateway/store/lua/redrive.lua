#!lua flags=allow-oom
-- Puts a rejected submission back in line, as if it arrived now, with all its tries before it.
--
-- KEYS  1 string  the record
-- ARGV  1 id  2 prefix of the upstream's keys  3 channel to wake forwarders
-- Returns {'gone'}             nothing written
--         {'refused', record}  nothing written: it is not rejected
--         {'queued', record}   written
-- Guarantee: only what surely made no job is submitted again; limits do not apply to what was accepted before, but its
-- deadline does, if it has not come yet.
local id, prefix, channel = ARGV[1], ARGV[2], ARGV[3]
local now = math.floor(clock_us() / 1000)

local record, rest, value = read_record(KEYS[1])
if not record then
  return { 'gone' }
end
if record.state ~= 'rejected' or record.sent or not is_dead_letter(record) then
  return { 'refused', value }
end
local standing = standing_of(prefix, id, record)
local sequence = tonumber(redis.call('HGET', prefix .. 'upstream', 'sequence') or 0) + 1

record.state, record.settled, record.error = 'queued', nil, nil
record.tries, record.first, record.returns = nil, nil, nil
local priority = priority_of(record.place)
local asked = record.asked_place and priority_of(record.asked_place)
record.place = place_of(priority, sequence)
record.asked_place = asked and place_of(asked, sequence)
list_ended(prefix, id, record)
value = pack_record(record, rest)
redis.call('SET', KEYS[1], value)
redis.call('HSET', prefix .. 'upstream', 'sequence', int(sequence))
count_in(standing)
if record.deadline and record.deadline > now then
  redis.call('ZADD', prefix .. 'deadlines', int(record.deadline), id)
end
if stand_ready(standing, record.place, math.max(standing.virtual, standing.finish)) then
  redis.call('PUBLISH', channel, '')
end
return { 'queued', value }
