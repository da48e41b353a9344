-- Library: binds tickets to ready jobs, which starts their leases.
--
-- This file is put between the prelude and the scripts that make leases. It takes no arguments.
--
-- The best job is the one with the lowest score of the tenant that is furthest behind its fair
-- share, among the tenants that may start a job. The pending entry of the ticket is the lease.

local MOST_EXPIRED = 64
local SIZES_CHARGED = 32

-- Builds the answer for a bound job, with the values that a worker needs; the worker decodes the
-- spec.
local function reply(id, values, attempts, started_at)
  return {
    'bound', id, values[1], values[2], attempts, values[4] or '0', started_at, values[5],
    values[6] and 1 or 0
  }
end

local function read(id)
  return call('HMGET', P .. 'job:' .. id, 'payload', 'spec', 'attempts', 'lost', 'ready_at',
    'cancel', 'state', 'expires_at', 'log')
end

-- Returns the tenants whose turn it is, the tenants that are held back, and whether there are
-- further tenants. The tenant furthest behind its fair share is next, and each start sets it back
-- by the inverse of its weight. Tenants at one of their limits are passed over, and lose the credit
-- for that time.
local function turns(class, wanted)
  local window = math.max(wanted, 2)
  while true do
    local flat = call('ZRANGE', P .. 'fair:' .. class, 0, window - 1, 'WITHSCORES')
    local tenants, held_back, room = {}, {}, 0
    for i = 1, #flat, 2 do
      local one = terms(flat[i])
      one.score = tonumber(flat[i + 1])
      one.alone = #flat == 2
      room = room + one.room
      local list = one.room > 0 and tenants or held_back
      list[#list + 1] = one
    end
    local all = #flat < 2 * window
    if all or room >= wanted and #held_back == 0 or window == TENANTS_SEEN then
      return tenants, held_back, not all
    end
    window = TENANTS_SEEN
  end
end

-- Returns the tenants that get each of `wanted` jobs, in order.
local function in_turn(class, tenants, held_back, wanted)
  local order, level = {}, nil
  for n = 1, wanted do
    local next
    for _, one in ipairs(tenants) do
      if one.times < one.room and (not next or one.score < next.score) then next = one end
    end
    if not next then break end
    level = next.score
    next.score = next.score + next.step
    next.times = next.times + 1
    order[n] = next
  end
  if level then
    for _, one in ipairs(held_back) do
      if one.score < level then call('ZADD', P .. 'fair:' .. class, 'XX', 'GT', level, one.name) end
    end
  end
  return order
end

-- Tenants take turns within each size of a class, and a turn in one size counts in all of them: a
-- tenant that spreads its jobs over sizes gets no more jobs. If there are very many sizes, a random
-- sample of them is charged, and each of these also counts for the ones left out.
local function charge_beside(class, tenants)
  local tags = tags_of(class)
  local list = P .. 'sized:' .. tags
  local sizes, each = call('SRANDMEMBER', list, SIZES_CHARGED), 1
  if #sizes == SIZES_CHARGED then each = call('SCARD', list) / SIZES_CHARGED end
  local function charge(other, times)
    local there = false
    for _, one in ipairs(tenants) do
      if one.times > 0 then
        there = call('ZADD', P .. 'fair:' .. other, 'XX', 'INCR',
          times * one.times * one.step, one.name) or there
      end
    end
    return there
  end
  for _, other in ipairs(sizes) do
    if other ~= class and not charge(other, each)
      and call('EXISTS', P .. 'fair:' .. other) == 0 then
      call('SREM', list, other)
    end
  end
  if class ~= tags then charge(tags, 1) end
end

-- Takes at most `wanted` jobs out of their ready sets, in fair order. Returns for each its id,
-- score and tenant; nothing if no job may start.
local function take(class, wanted)
  local fair = P .. 'fair:' .. class
  local tenants, held_back, more = turns(class, wanted)
  for _ = 2, 4 do
    if #tenants > 0 or not more then break end
    -- No tenant in the window may start a job, and there are tenants behind the window: move the
    -- held-back ones behind them.
    local last = held_back[#held_back].score + 1
    for _, one in ipairs(held_back) do call('ZADD', fair, 'XX', last, one.name) end
    tenants, held_back, more = turns(class, wanted)
  end
  local order = in_turn(class, tenants, held_back, wanted)
  for _, one in ipairs(tenants) do
    if one.times > 0 then
      local ready = P .. 'ready:' .. class .. ':' .. one.name
      one.jobs, one.given = call('ZPOPMIN', ready, one.times), 0
      if #one.jobs < 2 * one.times or call('EXISTS', ready) == 0 then
        call('ZREM', fair, one.name)
        if not one.alone then
          part(class, one.name, one.score - (one.times - #one.jobs / 2) * one.step)
        end
      elseif not one.alone then
        call('ZINCRBY', fair, one.times * one.step, one.name)
      end
    end
  end
  if #order > 0 then charge_beside(class, tenants) end
  local jobs = {}
  for _, one in ipairs(order) do
    local at = one.given + 1
    one.given = at + 1
    if one.jobs[at] then jobs[#jobs + 1] = { one.jobs[at], one.jobs[at + 1], one } end
  end
  return jobs
end

-- Binds tickets of this worker that are not bound to the best ready jobs of their class. Returns
-- for each ticket {'bound', …}, {'nothing'} (the ticket is deleted) or {'again'} (many jobs were
-- expired on the way, and the ticket is still there).
local function bind(worker, class, tickets)
  local replies, leases, used, over = {}, {}, 0, 0
  local gate = call('HMGET', P .. 'gate', 'paused', 'owed:' .. class)
  local function lease(id, values, score, one)
    local ticket = tickets[used]
    local attempt = values[3] and string.format('%.0f', tonumber(values[3]) + 1) or '1'
    call('HSET', P .. 'job:' .. id, 'state', 'running', 'attempts', attempt,
      'run', ticket .. ' ' .. worker .. ' ' .. NOW_TEXT .. ' ' .. score)
    if values[8] then call('ZREM', P .. 'expires', id) end
    leases[#leases + 1] = ticket
    leases[#leases + 1] = lease_entry(id, worker, attempt, values[9], values[2])
    one.started = one.started or {}
    one.started[#one.started + 1] = id
    event('started', id, { class = class, tenant = one.name },
      ' worker ' .. worker .. ' attempt ' .. attempt)
    replies[used] = reply(id, values, attempt, NOW_TEXT)
  end

  while not gate[1] and used < #tickets and over < MOST_EXPIRED do
    local jobs = take(class, #tickets - used)
    if #jobs == 0 then break end
    local served = {}
    for _, job in ipairs(jobs) do
      local id, score, one = unpack(job)
      local values = read(id)
      if values[7] ~= 'queued' then
        over = over + 1
      elseif values[8] and (values[3] or '0') == '0' and tonumber(values[8]) <= NOW then
        expired(id, load(id))
        over = over + 1
      else
        used = used + 1
        lease(id, values, score, one)
        served[one] = true
      end
    end
    for one in pairs(served) do began(one, one.started) end
  end
  if #leases > 0 then call('HSET', P .. 'bound:' .. class, unpack(leases)) end

  local worthless = {}
  for i = used + 1, #tickets do
    if over < MOST_EXPIRED then
      worthless[#worthless + 1] = tickets[i]
      replies[i] = { 'nothing' }
    else
      replies[i] = { 'again' }
    end
  end
  if #worthless > 0 then
    destroy(class, worthless)
    if call('EXISTS', P .. 'fair:' .. class) == 1 then
      -- The ready jobs may not start. Their tickets are owed, so that no worker keeps reading them
      -- in vain.
      call('HINCRBY', P .. 'gate', 'owed:' .. class, #worthless)
    elseif gate[2] then
      call('HDEL', P .. 'gate', 'owed:' .. class)
    end
  end
  return replies
end

