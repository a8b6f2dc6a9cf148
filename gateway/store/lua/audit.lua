#!lua flags=no-writes
-- Looks at submissions, each with every place where it may stand at one moment; what is wrong with it others say.
--
-- KEYS  1 zset  delayed submissions, by when they are due (ms)
--       2 zset  leased submissions, by when the lease ends (ms)
--       3 zset  what Batch is to be asked for beside submitting, by when that is due (ms)
--       4 zset  queued submissions with a deadline, by deadline (ms)
--       and for each submission:
--       + string  the record
-- ARGV  1 prefix of the upstream's keys
--       and for each submission:
--       + id  + zset where it was met, without the prefix (empty for none)
-- Returns {'looked', now (ms), msgpack list of facts for each submission}  nothing written
-- Guarantee: the server lets it write nothing; an answer holds together, whatever happens before and after.
local prefix = ARGV[1]
local COMMON_KEYS, COMMON_ARGS, ARGS_EACH = 4, 1, 2

-- Few records are longer before their request begins; a request has up to 30 KiB, and nobody asks for it here.
local HEAD_BYTES = 2048

-- The record's head, as much of it as is understood, and the map in it; whether all of it was there.
local function read_head(value)
  local fine, offset, record = pcall(cmsgpack.unpack_one, value)
  if not fine or type(record) ~= 'table' then
    return '', {}, false
  end
  local start = offset >= 0 and offset or #value
  local length = start + (tonumber(record.identity) or 0)
  return string.sub(value, 1, length), record, length <= #value
end

-- Where something else than a zset has a place's name, nobody stands there. Who walks through it tells that.
local is_zset = {}
local function score(key, id)
  if is_zset[key] == nil then
    is_zset[key] = redis.call('TYPE', key).ok == 'zset'
  end
  return is_zset[key] and redis.call('ZSCORE', key, id)
end

local function text_at(key)
  return redis.call('TYPE', key).ok == 'string' and redis.call('GET', key)
end

-- Facts of one: the record up to its request (false where there is none or no string, empty where it cannot be read),
-- its whole length (bytes), its PTTL (ms); scores, false where it does not stand: where it was met, delayed, leased,
-- errands, deadlines, its share's ready, held and waiting, and its queue's ended; the job that its alias names, the submission that its
-- job names.
local now = math.floor(clock_us() / 1000)
local found = {}
for number = 1, #KEYS - COMMON_KEYS do
  local key = KEYS[COMMON_KEYS + number]
  local id, met = ARGV[COMMON_ARGS + ARGS_EACH * number - 1], ARGV[COMMON_ARGS + ARGS_EACH * number]
  local length = redis.call('TYPE', key).ok == 'string' and redis.call('STRLEN', key) or 0
  local facts = { false, length, redis.call('PTTL', key), met ~= '' and score(prefix .. met, id),
    score(KEYS[1], id), score(KEYS[2], id), score(KEYS[3], id), score(KEYS[4], id), false, false, false, false,
    false, false }
  if length > 0 then
    local value = redis.call('GETRANGE', key, 0, HEAD_BYTES - 1)
    local head, record, whole = read_head(value)
    if not whole and length > HEAD_BYTES then
      value = redis.call('GET', key)
      head, record = read_head(value)
    end
    facts[1] = head
    if type(record.share) == 'string' then
      facts[9] = score(prefix .. 'ready:' .. record.share, id)
      facts[10] = score(prefix .. 'held:' .. record.share, id)
      facts[11] = score(prefix .. 'waiting:' .. record.share, id)
    end
    if type(record.queue) == 'string' then
      facts[12] = score(prefix .. 'ended:' .. record.queue, id)
    end
    if type(record.job_id) == 'string' then
      facts[13] = text_at(prefix .. 'alias:' .. id)
      facts[14] = text_at(prefix .. 'job:' .. record.job_id)
    end
  end
  found[number] = facts
end
return { 'looked', now, cmsgpack.pack(found) }
