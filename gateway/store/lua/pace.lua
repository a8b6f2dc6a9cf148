
-- The upstream: what a call told of it. Every process learns from every other's calls, for there is one budget.

local UNPROVED_CEILING_MS = 10000 -- soon after a storm the pace must be back
local NEAR = 0.9 -- of the limit in force: jitter can make a budget of five calls a second look like four and a half

local PACE_FIELDS = { 'pace', 'ceiling', 'ceiling_at', 'ceiling_for', 'slowed_at', 'passed_slowed', 'failures',
  'failed_ids', 'outage', 'o_rate', 'held_until', 'not_before', 'throttled' }

local function read_pace(key)
  local values, pace = redis.call('HMGET', key, unpack(PACE_FIELDS)), {}
  for position, name in ipairs(PACE_FIELDS) do
    pace[name] = values[position]
  end
  return pace
end

local GATE_FIELDS = { 'pace', 'slot', 'not_before', 'held_until', 'outage', 'probe_at', 'forwarding', 'o_rate' }

-- Whether and when a call may go. `rate` is the settings', in calls a second.
local function read_gate(key, rate)
  local values, gate = redis.call('HMGET', key, unpack(GATE_FIELDS)), {}
  for position, name in ipairs(GATE_FIELDS) do
    gate[name] = values[position]
  end
  local limit = tonumber(gate.o_rate or rate)
  gate.step_us = 1000000 / math.min(tonumber(gate.pace or limit), limit)
  gate.slot = tonumber(gate.slot or 0)
  gate.outage = gate.outage == '1'
  return gate
end

-- For how long no call may go (ms, -1: until somebody changes that), and why; nothing where one may go now.
local function closed_for(gate, burst, now_us)
  local now = math.floor(now_us / 1000)
  if gate.forwarding == '0' then
    return -1, 'stopped'
  end
  local opens = gate.slot - (burst - 1) * gate.step_us
  if opens > now_us then
    return math.ceil((opens - now_us) / 1000), 'pace'
  end
  for field, reason in pairs({ not_before = 'throttled', held_until = 'held' }) do
    local until_ms = tonumber(gate[field] or 0)
    if until_ms > now then
      return until_ms - now, reason
    end
  end
  if gate.outage and tonumber(gate.probe_at or 0) > now then
    return tonumber(gate.probe_at) - now, 'outage'
  end
end

-- What follows from a call with this signal: fields and values to set, and whether there is an outage now; `told` gets
-- what the log shall say. `call` is {id, signal, now, rate, paced, told_ms}: when it was settled, the settings' rate,
-- whether the budget was what limited it, and how long Batch says to wait.
local function hear(pace, call, rules, told)
  local set = {}
  local function put(field, text)
    set[#set + 1] = field
    set[#set + 1] = text
  end
  local rate = tonumber(pace.o_rate or call.rate)
  local outage = pace.outage == '1'
  local speed = math.min(tonumber(pace.pace or rate), rate)
  if call.signal == 'answered' or call.signal == 'throttled' or call.signal == 'denied' then -- somebody is there
    if pace.failures then
      put('failures', '0')
      put('failed_ids', '')
    end
    if outage then
      outage = false
      put('outage', '0')
      told.outage = false
    end
    if tonumber(pace.held_until or 0) > 0 then
      put('held_until', '0')
      told.released = 'credentials'
    end
  end
  -- The ceiling in force, and how long it is trusted.
  local limit, trusted_ms = rate, tonumber(pace.ceiling_for or rules.ceiling_ms)
  local in_force = pace.ceiling and call.now - tonumber(pace.ceiling_at or 0) < trusted_ms
  if in_force then
    limit = math.max(math.min(rate, tonumber(pace.ceiling)), rules.floor)
  end
  if call.signal == 'answered' then
    if speed > limit then
      put('pace', exact(limit))
    elseif call.paced and speed < limit then
      -- A tenth of the gap and a hundredth of the limit: back within seconds, gently near the end.
      put('pace', exact(math.min(limit, speed + 0.1 * (limit - speed) + 0.01 * limit)))
    end
    put('passed_slowed', '1')
  elseif call.signal == 'throttled' then
    put('throttled', int(tonumber(pace.throttled or 0) + 1))
    if call.now - tonumber(pace.slowed_at or 0) >= rules.decrease_every_ms then
      local slower = math.max(rules.floor, speed * rules.decrease)
      put('pace', exact(slower))
      put('slowed_at', int(call.now))
      -- Only a rate at which calls had passed says where the ceiling is; a storm in which none passes says nothing.
      if not pace.slowed_at or pace.passed_slowed == '1' then
        -- A throttle well below the limit in force tells of a storm, not of a budget: its ceiling has yet to prove itself,
        -- and is trusted for twice as long each time that calls pass until it is forgotten and are throttled then.
        if (in_force or trusted_ms == rules.ceiling_ms) and speed < NEAR * limit then
          trusted_ms = math.min(UNPROVED_CEILING_MS, rules.ceiling_ms)
        elseif not in_force then
          trusted_ms = math.min(2 * trusted_ms, rules.ceiling_ms)
        end
        put('ceiling', exact(speed * rules.ceiling))
        put('ceiling_for', int(trusted_ms))
        put('ceiling_at', int(call.now))
        put('passed_slowed', '0')
      end
      told.pace = slower
    end
    if call.told_ms > 0 then
      put('not_before', int(math.max(call.now + call.told_ms, tonumber(pace.not_before or 0))))
    end
  elseif call.signal == 'failed' or call.signal == 'unreachable' then
    local failures = tonumber(pace.failures or 0) + 1
    local ids = pace.failed_ids or ''
    if not string.find(ids, call.id, 1, true) and #ids < 37 * rules.outage_submissions then
      ids = ids .. call.id .. ' '
    end
    put('failures', int(failures))
    put('failed_ids', ids)
    local enough = failures >= rules.outage_failures and #ids >= 37 * rules.outage_submissions
    if not outage and (call.signal == 'unreachable' or enough) then
      outage = true
      put('outage', '1')
      put('probe_at', int(call.now + rules.probe_every_ms))
      put('probed', call.id)
      told.outage = true
    end
  elseif call.signal == 'credentials' then
    put('held_until', int(call.now + rules.credentials_hold_ms))
    told.held = 'credentials'
  elseif call.signal == 'denied' then
    told.held = 'denied'
  end
  return set, outage
end
