-- Library: the fair order of the tenants of a class, the sorted set `fair:<class>`.
--
-- This file is put after lease.lua, before every script that uses the library. It takes no
-- arguments.
--
-- A tenant is in the fair order while it has a ready job. The tenant with the lowest score is next,
-- and each start adds to its score. The sorted set `debt:<class>` holds the scores at which tenants
-- left the order.

-- Returns how far a start sets a tenant back in the fair order.
local function fair_step(weight)
  return 1 / math.max(tonumber(weight) or 1, 0.001)
end

-- Records the score at which a tenant leaves the fair order, because it has no ready job any more.
local function leave_fair_order(class, tenant, score)
  local fair_positions = P .. 'debt:' .. class
  if call('ZADD', fair_positions, score, tenant) == 1 then
    call('ZREMRANGEBYRANK', fair_positions, 0, -FAIR_POSITIONS_KEPT - 1)
    call('PEXPIRE', fair_positions, FAIR_POSITION_LIFE_MS)
  end
end

-- Returns the score with which a tenant comes back to the fair order. Usually this is `first`, the
-- score of the front, without credit for the time of its absence. If the other tenants have not yet
-- reached the score at which it left, it gets that score again; otherwise a tenant that submits its
-- jobs one by one would get a turn for each of them. A tenant leaves at most one start behind the
-- front; a greater recorded score belongs to an order that has begun anew since then.
local function reentry_score(class, tenant, first)
  local fair_position = tonumber(call('ZSCORE', P .. 'debt:' .. class, tenant) or first)
  if fair_position <= first then return first end
  return math.min(fair_position,
    first + fair_step(call('HGET', P .. 'tenant:' .. tenant, 'weight')))
end

-- Returns the tags of a class. They are its whole name if its jobs have the default size.
local function tags_of(class)
  return string.match(class, '^[^~]*')
end

-- Adds a tenant that had no ready job to the fair order. `sized:<tags>` holds the classes of these
-- tags with another size in which a tenant has ready jobs.
local function enter_fair_order(class, tenant)
  local fair = P .. 'fair:' .. class
  if call('ZSCORE', fair, tenant) then return end
  local first = call('ZRANGE', fair, 0, 0, 'WITHSCORES')[2]
  call('ZADD', fair, first and reentry_score(class, tenant, tonumber(first)) or 0, tenant)
  local tags = tags_of(class)
  if not first and tags ~= class then call('SADD', P .. 'sized:' .. tags, class) end
end
