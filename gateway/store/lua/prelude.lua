-- Before every command's own text: the clock, how a record is packed, how a share enters the fair order.
--
-- A record is one string: the msgpack map of what changes, then `identity` and `request`, two byte strings that are
-- written once and never looked into here. `record.identity` is the length of the first; the second is the rest.
--
-- Fair order (start-time fair queueing): the zset `active` scores each share that has something ready with its start
-- tag S = max(V, F); serving it moves V to S and the share's F to S + 1/weight. V is the upstream's `virtual`, F the
-- share's `finish`. Times are the store's own, in microseconds where calls or rates are measured, else milliseconds.

-- The version of what the store holds. Within one, changes only add, and no script drops what it does not know. A new
-- one is read by a release before the next one writes it: the first number goes first (README, "Upgrades";
-- store/versions.py has it too).
local VERSION_READ, VERSION_WRITTEN = 1, 1

local function clock_us()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

local function int(number)
  return string.format('%.0f', number)
end

local function exact(number)
  return string.format('%.17g', number)
end

-- Ends the command where a newer gateway has written; called before the first write, so that nothing is half done.
-- Commands that take, hand out and bring back ask it of the upstream's `version`, all of each record that they read.
local function refuse_newer(version)
  if tonumber(version or 1) > VERSION_READ then
    local told = 'NEWER The store holds records of a newer gateway (version %d, this one knows %d): upgrade this one'
    error({ err = string.format(told, version, VERSION_READ) })
  end
end

local function read_record(key)
  local value = redis.call('GET', key)
  if not value then
    return nil
  end
  local offset, record = cmsgpack.unpack_one(value)
  refuse_newer(record.v)
  local rest = ''
  if offset >= 0 then
    rest = string.sub(value, offset + 1)
  end
  return record, rest, value
end

local function pack_record(record, rest)
  return cmsgpack.pack(record) .. rest
end

-- Most records fail a few times at most; what a long outage adds beyond this is counted, not kept.
local MAX_ATTEMPTS_KEPT = 20

local function add_attempt(record, at_ms, outcome, err)
  local attempts = record.attempts or {}
  if #attempts >= MAX_ATTEMPTS_KEPT then
    table.remove(attempts, 1)
  end
  local attempt = { at = at_ms, outcome = outcome }
  if err and err ~= '' then
    attempt.error = err
  end
  attempts[#attempts + 1] = attempt
  record.attempts = attempts
  record.attempt_count = (record.attempt_count or 0) + 1
end

-- Priority first, then arrival: one score that a double holds exactly (10^4 * 2^39 < 2^53).
local ARRIVALS = 549755813888

local function place_of(priority, sequence)
  return (9999 - priority) * ARRIVALS + sequence
end

local function priority_of(place)
  return 9999 - math.floor(place / ARRIVALS)
end

-- The place with another priority and the same arrival.
local function moved_place(place, priority)
  return place_of(priority, place % ARRIVALS)
end
