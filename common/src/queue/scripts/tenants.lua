-- Put between the prelude and the scripts that look at tenants' limits.
--
-- The hash `tenant:<t>` holds what an operator set: weight, max_running, rate_per_s, burst, paused,
-- max_queued, max_retained; each is absent when not set. The set `running:<t>` holds the ids of its
-- running jobs, so that the count cannot drift. The string `rate:<t>` holds the theoretical arrival
-- time (ms) of the generic cell rate algorithm.

-- Tenants of one class that are looked at, at most.
local TENANTS_SEEN = 256

-- What a tenant may do now: `step`, how far a start sets it back in the fair order; `room`, how many jobs it may start;
-- with a rate also its `interval`, its `arrival` time, and `wait`, how long until a start is allowed (ms).
local function terms(tenant)
  local set = call('HMGET', P .. 'tenant:' .. tenant, 'weight', 'max_running', 'rate_per_s', 'burst', 'paused')
  local one = { name = tenant, step = step_of(set[1]), room = math.huge, times = 0 }
  if set[5] then
    one.room = 0
    return one
  end
  if set[2] then one.room = math.max(tonumber(set[2]) - call('SCARD', P .. 'running:' .. tenant), 0) end
  if set[3] then
    local rate = tonumber(set[3])
    one.interval = 1000 / rate
    one.arrival = math.max(tonumber(call('GET', P .. 'rate:' .. tenant)) or 0, NOW)
    local credit = one.interval * (tonumber(set[4]) or math.max(math.ceil(rate), 1))
    one.wait = one.arrival + one.interval - credit - NOW
    one.room = math.min(one.room, math.max(math.floor((NOW + credit - one.arrival) / one.interval + 1e-6), 0))
  end
  return one
end

-- Jobs of a tenant began: they count against its limits.
local function began(one, ids)
  call('SADD', P .. 'running:' .. one.name, unpack(ids))
  if one.interval then
    local arrival = one.arrival + #ids * one.interval
    call('SET', P .. 'rate:' .. one.name, string.format('%.3f', arrival), 'PX', math.ceil(arrival - NOW) + 1)
  end
end

-- How many jobs of a class are ready (nil when it has more tenants than are looked at), how many of them may start now,
-- and how long until some tenant's rate allows another (ms; nil when no rate holds one back).
local function waiting(class)
  local ready, startable, wait = 0, 0, nil
  local names = call('ZRANGE', P .. 'fair:' .. class, 0, TENANTS_SEEN - 1)
  for _, tenant in ipairs(names) do
    local here = call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
    local one = terms(tenant)
    ready = ready + here
    startable = startable + math.min(here, one.room)
    if one.wait and one.wait > 0 and one.room == 0 then wait = math.min(wait or one.wait, one.wait) end
  end
  if #names == TENANTS_SEEN then ready = nil end
  return ready, startable, wait
end

