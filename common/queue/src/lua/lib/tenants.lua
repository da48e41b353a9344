-- Library: evaluates the limits of tenants.
--
-- This file is put after writes.lua and before the scripts that apply tenants' limits. It takes no
-- arguments.
--
-- The hash `tenant:<t>` holds the settings of an operator: weight, max_running, rate_per_s, burst,
-- paused, max_queued, max_retained; each is absent if not set. The set `running:<t>` holds the ids
-- of the tenant's running jobs, so that their count cannot drift. The string `rate:<t>` holds the
-- theoretical arrival time (ms) of the generic cell rate algorithm.

-- Maximum number of tenants of one class that are examined.
local TENANT_WINDOW = 256

-- Returns the present state of a tenant's limits: `step`, the distance by which a start sets it
-- back in the fair order, `startable`, the number of jobs that it may start, and `starts`, a count
-- for the caller, 0. With a rate also its `interval` and its `arrival` time (ms), and `wait`, the
-- time until a start is allowed (ms).
local function limits_of(tenant)
  local set = call('HMGET', P .. 'tenant:' .. tenant, 'weight', 'max_running', 'rate_per_s',
    'burst', 'paused')
  local tenant_state =
    { name = tenant, step = fair_step(set[1]), startable = math.huge, starts = 0 }
  if set[5] then
    tenant_state.startable = 0
    return tenant_state
  end
  if set[2] then
    tenant_state.startable =
      math.max(tonumber(set[2]) - call('SCARD', P .. 'running:' .. tenant), 0)
  end
  if set[3] then
    local rate = tonumber(set[3])
    tenant_state.interval = 1000 / rate
    tenant_state.arrival = math.max(tonumber(call('GET', P .. 'rate:' .. tenant)) or 0, NOW)
    local credit = tenant_state.interval * (tonumber(set[4]) or math.max(math.ceil(rate), 1))
    tenant_state.wait = tenant_state.arrival + tenant_state.interval - credit - NOW
    tenant_state.startable = math.min(tenant_state.startable,
      math.max(math.floor((NOW + credit - tenant_state.arrival) / tenant_state.interval + 1e-6), 0))
  end
  return tenant_state
end

-- Counts jobs of a tenant that began against its limits.
local function count_started(tenant_state, ids)
  call('SADD', P .. 'running:' .. tenant_state.name, unpack(ids))
  if tenant_state.interval then
    local arrival = tenant_state.arrival + #ids * tenant_state.interval
    call('SET', P .. 'rate:' .. tenant_state.name, string.format('%.3f', arrival),
      'PX', math.ceil(arrival - NOW) + 1)
  end
end

-- Returns the number of ready jobs of a class (nil if it has more tenants than are examined), the
-- number of them that may start now, and the time until some tenant's rate allows another (ms; nil
-- if no rate holds a job back).
local function ready_counts(class)
  local ready, startable, wait = 0, 0, nil
  local names = call('ZRANGE', P .. 'fair:' .. class, 0, TENANT_WINDOW - 1)
  for _, tenant in ipairs(names) do
    local here = call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
    local tenant_state = limits_of(tenant)
    ready = ready + here
    startable = startable + math.min(here, tenant_state.startable)
    if tenant_state.wait and tenant_state.wait > 0 and tenant_state.startable == 0 then
      wait = math.min(wait or tenant_state.wait, tenant_state.wait)
    end
  end
  if #names == TENANT_WINDOW then ready = nil end
  return ready, startable, wait
end
