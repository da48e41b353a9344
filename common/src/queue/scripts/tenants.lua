-- Library: evaluates the limits of tenants.
--
-- This file is put between the prelude and the scripts that apply tenants' limits. It takes no
-- arguments.
--
-- The hash `tenant:<t>` holds the settings of an operator: weight, max_running, rate_per_s, burst,
-- paused, max_queued, max_retained; each is absent if not set. The set `running:<t>` holds the ids
-- of the tenant's running jobs, so that their count cannot drift. The string `rate:<t>` holds the
-- theoretical arrival time (ms) of the generic cell rate algorithm.

-- Maximum number of tenants of one class that are examined.
local TENANTS_SEEN = 256

-- Returns what a tenant may do now: `step`, how far a start sets it back in the fair order, and
-- `room`, how many jobs it may start. With a rate also its `interval` and its `arrival` time (ms),
-- and `wait`, the time until a start is allowed (ms).
local function terms(tenant)
  local set = call('HMGET', P .. 'tenant:' .. tenant, 'weight', 'max_running', 'rate_per_s',
    'burst', 'paused')
  local one = { name = tenant, step = step_of(set[1]), room = math.huge, times = 0 }
  if set[5] then
    one.room = 0
    return one
  end
  if set[2] then
    one.room = math.max(tonumber(set[2]) - call('SCARD', P .. 'running:' .. tenant), 0)
  end
  if set[3] then
    local rate = tonumber(set[3])
    one.interval = 1000 / rate
    one.arrival = math.max(tonumber(call('GET', P .. 'rate:' .. tenant)) or 0, NOW)
    local credit = one.interval * (tonumber(set[4]) or math.max(math.ceil(rate), 1))
    one.wait = one.arrival + one.interval - credit - NOW
    one.room = math.min(one.room,
      math.max(math.floor((NOW + credit - one.arrival) / one.interval + 1e-6), 0))
  end
  return one
end

-- Counts jobs of a tenant that began against its limits.
local function began(one, ids)
  call('SADD', P .. 'running:' .. one.name, unpack(ids))
  if one.interval then
    local arrival = one.arrival + #ids * one.interval
    call('SET', P .. 'rate:' .. one.name, string.format('%.3f', arrival),
      'PX', math.ceil(arrival - NOW) + 1)
  end
end

-- Returns the number of ready jobs of a class (nil if it has more tenants than are examined), the
-- number of them that may start now, and the time until some tenant's rate allows another (ms; nil
-- if no rate holds a job back).
local function waiting(class)
  local ready, startable, wait = 0, 0, nil
  local names = call('ZRANGE', P .. 'fair:' .. class, 0, TENANTS_SEEN - 1)
  for _, tenant in ipairs(names) do
    local here = call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
    local one = terms(tenant)
    ready = ready + here
    startable = startable + math.min(here, one.room)
    if one.wait and one.wait > 0 and one.room == 0 then
      wait = math.min(wait or one.wait, one.wait)
    end
  end
  if #names == TENANTS_SEEN then ready = nil end
  return ready, startable, wait
end

