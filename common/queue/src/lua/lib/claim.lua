-- Library: binds tickets to ready jobs, which starts their leases.
--
-- This file is put after tenants.lua and before the scripts that make leases. It takes no
-- arguments.
--
-- The best job is the one with the lowest score of the tenant that is furthest behind its fair
-- share, among the tenants that may start a job. The pending entry of the ticket is the lease.

local SKIPPED_LIMIT = 64 -- jobs that one call passes over, because they have ended or expired
local SIZES_CHARGED = 32 -- other sizes of a class whose fair order one call changes

-- Builds the answer for a bound job, with the values that a worker needs; the worker decodes the
-- spec.
local function bound_reply(id, values, attempts, started_at)
  return {
    'bound', id, values[1], values[2], attempts, values[4] or '0', started_at, values[5],
    values[6] and 1 or 0
  }
end

-- Returns the fields of a job's record from which bound_reply() and a lease are made.
local function read_job(id)
  return call('HMGET', P .. 'job:' .. id, 'payload', 'spec', 'attempts', 'lost', 'ready_at',
    'cancel', 'state', 'expires_at', 'log')
end

-- Returns the tenants that may start a job, the tenants that are held back, and whether there are
-- further tenants. The tenant furthest behind its fair share is next, and each start sets it back
-- by the inverse of its weight. Tenants at one of their limits are passed over, and lose the credit
-- for that time.
local function eligible_tenants(class, wanted)
  local window = math.max(wanted, 2)
  while true do
    local flat = call('ZRANGE', P .. 'fair:' .. class, 0, window - 1, 'WITHSCORES')
    local tenants, held_back, startable = {}, {}, 0
    for i = 1, #flat, 2 do
      local tenant = limits_of(flat[i])
      tenant.score = tonumber(flat[i + 1])
      tenant.alone = #flat == 2
      startable = startable + tenant.startable
      local list = tenant.startable > 0 and tenants or held_back
      list[#list + 1] = tenant
    end
    local all = #flat < 2 * window
    if all or startable >= wanted and #held_back == 0 or window == TENANT_WINDOW then
      return tenants, held_back, not all
    end
    window = TENANT_WINDOW
  end
end

-- Returns the tenants that get each of `wanted` jobs, in order.
local function allocate(class, tenants, held_back, wanted)
  local order, level = {}, nil
  for n = 1, wanted do
    local next
    for _, tenant in ipairs(tenants) do
      if tenant.starts < tenant.startable and (not next or tenant.score < next.score) then
        next = tenant
      end
    end
    if not next then break end
    level = next.score
    next.score = next.score + next.step
    next.starts = next.starts + 1
    order[n] = next
  end
  if level then
    for _, tenant in ipairs(held_back) do
      if tenant.score < level then
        call('ZADD', P .. 'fair:' .. class, 'XX', 'GT', level, tenant.name)
      end
    end
  end
  return order
end

-- Sets the tenants back in the other sizes of a class too. Tenants take turns within each size of a
-- class, and a turn in one size counts in all of them: a tenant that spreads its jobs over sizes
-- gets no more jobs. If there are very many sizes, a random sample of them is charged, and each of
-- these also counts for the ones left out.
local function charge_other_sizes(class, tenants)
  local tags = tags_of(class)
  local list = P .. 'sized:' .. tags
  local sizes, each = call('SRANDMEMBER', list, SIZES_CHARGED), 1
  if #sizes == SIZES_CHARGED then each = call('SCARD', list) / SIZES_CHARGED end
  local function charge(other, times)
    local there = false
    for _, tenant in ipairs(tenants) do
      if tenant.starts > 0 then
        there = call('ZADD', P .. 'fair:' .. other, 'XX', 'INCR',
          times * tenant.starts * tenant.step, tenant.name) or there
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
local function take_jobs(class, wanted)
  local fair = P .. 'fair:' .. class
  local tenants, held_back, more = eligible_tenants(class, wanted)
  for _ = 2, 4 do
    if #tenants > 0 or not more then break end
    -- No tenant in the window may start a job, and there are tenants behind the window: move the
    -- held-back ones behind them.
    local last = held_back[#held_back].score + 1
    for _, tenant in ipairs(held_back) do call('ZADD', fair, 'XX', last, tenant.name) end
    tenants, held_back, more = eligible_tenants(class, wanted)
  end
  local order = allocate(class, tenants, held_back, wanted)
  for _, tenant in ipairs(tenants) do
    if tenant.starts > 0 then
      local ready = P .. 'ready:' .. class .. ':' .. tenant.name
      tenant.jobs, tenant.next_job = call('ZPOPMIN', ready, tenant.starts), 0
      if #tenant.jobs < 2 * tenant.starts or call('EXISTS', ready) == 0 then
        call('ZREM', fair, tenant.name)
        if not tenant.alone then
          leave_fair_order(class, tenant.name,
            tenant.score - (tenant.starts - #tenant.jobs / 2) * tenant.step)
        end
      elseif not tenant.alone then
        call('ZINCRBY', fair, tenant.starts * tenant.step, tenant.name)
      end
    end
  end
  if #order > 0 then charge_other_sizes(class, tenants) end
  local jobs = {}
  for _, tenant in ipairs(order) do
    local at = tenant.next_job + 1
    tenant.next_job = at + 1
    if tenant.jobs[at] then jobs[#jobs + 1] = { tenant.jobs[at], tenant.jobs[at + 1], tenant } end
  end
  return jobs
end

-- Binds tickets of this worker that are not bound to the best ready jobs of their class. Returns
-- for each ticket {'bound', …}, {'nothing'} (the ticket is deleted) or {'again'} (many jobs were
-- expired on the way, and the ticket is still there).
local function bind_tickets(worker, class, tickets)
  local replies, leases, used, skipped = {}, {}, 0, 0
  local gate = call('HMGET', P .. 'gate', 'paused', 'owed:' .. class)
  local function make_lease(id, values, score, tenant)
    local ticket = tickets[used]
    local attempt = values[3] and string.format('%.0f', tonumber(values[3]) + 1) or '1'
    call('HSET', P .. 'job:' .. id, 'state', 'running', 'attempts', attempt,
      'run', ticket .. ' ' .. worker .. ' ' .. NOW_TEXT .. ' ' .. score)
    if values[8] then call('ZREM', P .. 'expires', id) end
    leases[#leases + 1] = ticket
    leases[#leases + 1] = lease_entry(id, worker, attempt, values[9], values[2])
    tenant.started = tenant.started or {}
    tenant.started[#tenant.started + 1] = id
    add_event('started', id, { class = class, tenant = tenant.name },
      ' worker ' .. worker .. ' attempt ' .. attempt)
    replies[used] = bound_reply(id, values, attempt, NOW_TEXT)
  end

  while not gate[1] and used < #tickets and skipped < SKIPPED_LIMIT do
    local jobs = take_jobs(class, #tickets - used)
    if #jobs == 0 then break end
    local served = {}
    for _, job in ipairs(jobs) do
      local id, score, tenant = unpack(job)
      local values = read_job(id)
      if values[7] ~= 'queued' then
        skipped = skipped + 1
      elseif values[8] and (values[3] or '0') == '0' and tonumber(values[8]) <= NOW then
        end_expired(id, load_job(id))
        skipped = skipped + 1
      else
        used = used + 1
        make_lease(id, values, score, tenant)
        served[tenant] = true
      end
    end
    for tenant in pairs(served) do count_started(tenant, tenant.started) end
  end
  if #leases > 0 then call('HSET', P .. 'bound:' .. class, unpack(leases)) end

  local unused_tickets = {}
  for i = used + 1, #tickets do
    if skipped < SKIPPED_LIMIT then
      unused_tickets[#unused_tickets + 1] = tickets[i]
      replies[i] = { 'nothing' }
    else
      replies[i] = { 'again' }
    end
  end
  if #unused_tickets > 0 then
    delete_tickets(class, unused_tickets)
    if call('EXISTS', P .. 'fair:' .. class) == 1 then
      -- The ready jobs may not start. Their tickets are withheld, so that no worker keeps reading
      -- them in vain.
      call('HINCRBY', P .. 'gate', 'owed:' .. class, #unused_tickets)
    elseif gate[2] then
      call('HDEL', P .. 'gate', 'owed:' .. class)
    end
  end
  return replies
end
