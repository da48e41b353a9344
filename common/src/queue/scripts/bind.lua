-- Gives a worker's tickets of one class the best ready jobs of that class, and with them leases.
--
-- ARGV     worker, class, then tickets
-- Replies  for each ticket:
--          {'nothing'}: the ticket is destroyed, or was not this worker's
--          {'again'}: many jobs were expired on the way; call again
--          {'bound', id, payload, spec, attempts, lost, when it started, when it became ready (false: when it was
--           submitted), cancel (0 or 1)}
--
-- The best job is the first by score of the tenant that is furthest behind its fair share. The ticket's pending
-- entry is the lease; a ticket that was read long ago starts its time anew.

local worker, class = ARGV[1], ARGV[2]
local tickets = { unpack(ARGV, 3) }
local MOST_EXPIRED = 64
local FRESH_MS = 500
local stream = P .. 'tickets:' .. class
local bound = P .. 'bound:' .. class
local fair = P .. 'fair:' .. class

-- Only what binding asks for: the worker reads the spec.
local function reply(id, values, attempts, started_at)
  return { 'bound', id, values[1], values[2], attempts, values[4] or '0', started_at, values[5], values[6] and 1 or 0 }
end

local function read(id)
  return call('HMGET', P .. 'job:' .. id, 'payload', 'spec', 'attempts', 'lost', 'ready_at', 'cancel', 'state',
    'expires_at')
end

-- Who has which ticket. Tickets read together lie together in their reader's list, so one look mostly tells of all.
local pending = {}
for _, one in ipairs(redis.pcall('XPENDING', stream, WORKER_GROUP, tickets[1], tickets[#tickets], #tickets, worker)) do
  pending[one[1]] = one[3]
end
local function idle(ticket)
  if pending[ticket] then return pending[ticket] end
  local who, time = holder(class, ticket)
  if who == worker then return time end
end

local replies, open_tickets, stale = {}, {}, {}
local before = call('HMGET', bound, unpack(tickets))
local asked = {}
for i, ticket in ipairs(tickets) do
  replies[i] = { 'nothing' }
  if before[i] then
    local job = load(before[i])
    if held(before[i], job, ticket, worker, before[i]) then
      replies[i] = reply(before[i], read(before[i]), job.attempts, job.started_at)
    end
  elseif not asked[ticket] then
    local time = idle(ticket)
    if time then open_tickets[#open_tickets + 1] = i end
    if time and time > FRESH_MS then stale[ticket] = true end
  end
  asked[ticket] = true
end

-- The tenants whose turn it is, as many as could get one of `wanted` jobs, and how often each does: the one furthest
-- behind is next, and falls back by the inverse of its weight.
local function turns(wanted)
  local flat = call('ZRANGE', fair, 0, math.max(wanted, 2) - 1, 'WITHSCORES')
  if #flat == 2 then return { { name = flat[1], times = wanted } }, nil end
  local tenants, order = {}, {}
  for i = 1, #flat, 2 do
    local weight = tonumber(call('HGET', P .. 'tenant:' .. flat[i], 'weight')) or 1
    tenants[#tenants + 1] = {
      name = flat[i], score = tonumber(flat[i + 1]), step = 1 / math.max(weight, 0.001), times = 0,
    }
  end
  if #tenants == 0 then return tenants, order end
  for n = 1, wanted do
    local next = tenants[1]
    for _, tenant in ipairs(tenants) do
      if tenant.score < next.score then next = tenant end
    end
    next.score = next.score + next.step
    next.times = next.times + 1
    order[n] = next
  end
  return tenants, order
end

-- At most `wanted` jobs in fair order, taken out of their ready sets: for each its id, score and tenant; none when
-- nothing is ready.
local function take(wanted)
  local tenants, order = turns(wanted)
  local alone = #tenants == 1
  for _, tenant in ipairs(tenants) do
    if tenant.times > 0 then
      local ready = P .. 'ready:' .. class .. ':' .. tenant.name
      tenant.jobs, tenant.given = call('ZPOPMIN', ready, tenant.times), 0
      if #tenant.jobs < 2 * tenant.times or call('EXISTS', ready) == 0 then
        call('ZREM', fair, tenant.name)
      elseif not alone then
        call('ZINCRBY', fair, tenant.times * tenant.step, tenant.name)
      end
    end
  end
  local jobs = {}
  for n = 1, #tenants > 0 and wanted or 0 do
    local tenant = alone and tenants[1] or order[n]
    local at = tenant.given + 1
    tenant.given = at + 1
    local id = tenant.jobs[at]
    if id then
      jobs[#jobs + 1] = id
      jobs[#jobs + 1] = tenant.jobs[at + 1]
      jobs[#jobs + 1] = tenant.name
    end
  end
  return jobs
end

local leases, renewed = {}, {}
local function lease(at, id, values, score, tenant)
  local ticket = tickets[at]
  local attempt = values[3] and string.format('%.0f', tonumber(values[3]) + 1) or '1'
  call('HSET', P .. 'job:' .. id, 'state', 'running', 'attempts', attempt,
    'run', ticket .. ' ' .. worker .. ' ' .. NOW_TEXT .. ' ' .. score)
  if values[8] then call('ZREM', P .. 'expires', id) end
  if stale[ticket] then renewed[#renewed + 1] = ticket end
  leases[#leases + 1] = ticket
  leases[#leases + 1] = id
  event('started', id, { class = class, tenant = tenant }, ' worker ' .. worker .. ' attempt ' .. attempt)
  replies[at] = reply(id, values, attempt, NOW_TEXT)
end

local used, over = 0, 0
while used < #open_tickets and over < MOST_EXPIRED do
  local jobs = take(#open_tickets - used)
  if #jobs == 0 then break end
  for i = 1, #jobs, 3 do
    local id = jobs[i]
    local values = read(id)
    if values[7] ~= 'queued' then
      over = over + 1
    elseif values[8] and (values[3] or '0') == '0' and tonumber(values[8]) <= NOW then
      expired(id, load(id))
      over = over + 1
    else
      used = used + 1
      lease(open_tickets[used], id, values, jobs[i + 1], jobs[i + 2])
    end
  end
end

if #leases > 0 then call('HSET', bound, unpack(leases)) end
if #renewed > 0 then call('XCLAIM', stream, WORKER_GROUP, worker, 0, unpack(renewed), 'JUSTID') end
local worthless = {}
for i = used + 1, #open_tickets do
  if over < MOST_EXPIRED then
    worthless[#worthless + 1] = tickets[open_tickets[i]]
  else
    replies[open_tickets[i]] = { 'again' }
  end
end
destroy(class, worthless)
flush()
return replies
