-- Library: the ready jobs of a tenant in a class, the sorted set `ready:<class>:<tenant>`, and the
-- tickets that belong to them.
--
-- This file is put after fairness.lua, before every script that uses the library. It takes no
-- arguments.

-- Returns the score of a job that becomes ready at this time: a higher priority makes it lower.
local function score_at(ms, job)
  return string.format('%.3f', ms - CREDIT_MS * (tonumber(job.priority) or 0))
end

-- Jobs that flush() adds to the ready sets of their tenants: by class, then by tenant, scores and
-- ids in turn.
local pending_ready = {}
local function add_ready(id, job, score)
  local tenants = pending_ready[job.class]
  if not tenants then
    tenants = {}
    pending_ready[job.class] = tenants
  end
  local members = tenants[job.tenant]
  if not members then
    members = {}
    tenants[job.tenant] = members
  end
  members[#members + 1] = score
  members[#members + 1] = id
end

-- Makes a job ready that was in another state. Its waiting time begins now. flush() issues its
-- ticket.
local function make_ready(id, job, score)
  local record = P .. 'job:' .. id
  if job.state == 'delayed' then call('HDEL', record, 'run_at') end
  call('HSET', record, 'state', 'queued', 'ready_at', NOW_TEXT)
  job.state = 'queued'
  add_ready(id, job, score)
end

-- Ended leases. flush() removes their jobs from the running jobs of their tenants: by class, then
-- by tenant, ids.
local ended_leases = {}
local function end_lease(class, tenant, id)
  ended_leases[class] = ended_leases[class] or {}
  ended_leases[class][tenant] = ended_leases[class][tenant] or {}
  local ids = ended_leases[class][tenant]
  ids[#ids + 1] = id
end

-- Returns the number of withheld tickets of a class. They were deleted because the tenants of all
-- ready jobs were at their limits, or because the queue was paused. Unbound tickets and withheld
-- ones together are never fewer than the ready jobs of the class.
local function withheld_tickets(class)
  return tonumber(call('HGET', P .. 'gate', 'owed:' .. class)) or 0
end

-- Issues this many of the withheld tickets of a class.
local function release_tickets(class, tickets)
  if tickets <= 0 then return end
  if call('HINCRBY', P .. 'gate', 'owed:' .. class, -tickets) <= 0 then
    call('HDEL', P .. 'gate', 'owed:' .. class)
  end
  issue_tickets(class, tickets)
end

-- Removes ended jobs from the running jobs of their tenants. If a tenant has a limit of running
-- jobs, each ended job lets a held-back one start, so one withheld ticket is issued for it.
local function remove_running(class, tenants)
  local withheld = withheld_tickets(class)
  for tenant, ids in pairs(tenants) do
    call('SREM', P .. 'running:' .. tenant, unpack(ids))
    if withheld > 0 and call('HEXISTS', P .. 'tenant:' .. tenant, 'max_running') == 1 then
      local tickets = math.min(withheld, #ids)
      withheld = withheld - tickets
      release_tickets(class, tickets)
    end
  end
end

-- Writes the collected changes of tenants' running and ready jobs. A script calls it before it
-- reads what it has changed itself.
local function flush_ready()
  for class, tenants in pairs(ended_leases) do remove_running(class, tenants) end
  ended_leases = {}
  for class, tenants in pairs(pending_ready) do
    local tickets = 0
    for tenant, members in pairs(tenants) do
      call('ZADD', P .. 'ready:' .. class .. ':' .. tenant, unpack(members))
      enter_fair_order(class, tenant)
      tickets = tickets + #members / 2
    end
    issue_tickets(class, tickets)
  end
  pending_ready = {}
end

-- Removes a job from the delayed jobs.
local function remove_delayed(id, job)
  call('ZREM', P .. 'delayed', id)
  call('ZREM', P .. 'later:' .. job.tenant, id)
end

-- Removes a job from its ready set. Its ticket stays but is worth nothing: undelivered tickets are
-- never deleted.
local function remove_ready(id, job)
  local ready = P .. 'ready:' .. job.class .. ':' .. job.tenant
  call('ZREM', ready, id)
  if call('EXISTS', ready) == 1 then return end
  local fair = P .. 'fair:' .. job.class
  local score = call('ZSCORE', fair, job.tenant)
  call('ZREM', fair, job.tenant)
  if score and call('EXISTS', fair) == 1 then leave_fair_order(job.class, job.tenant, score) end
end
