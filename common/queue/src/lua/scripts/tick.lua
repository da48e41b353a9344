-- Maintenance: promotes and expires jobs, takes back lapsed leases, and removes traces of dead
-- workers.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  lease (ms)
-- ARGV[2]  number of lost attempts after which a job is given up
-- ARGV[3]  idle time after which a consumer is removed (ms)
-- ARGV[4]  maximum number of items of each kind in this call
-- ARGV[5]  1 to include the work that belongs to no single class (else 0)
-- ARGV[6]  1 to sweep too (else 0)
-- ARGV[7]  first class; further classes follow
-- Result   numbers of: promoted, expired, reclaimed, given up, cancelled jobs; reissued and
--          restored tickets; removed consumers, workers and classes; issued withheld tickets; then
--          1 if there may be more to do (else 0), time until a tenant's rate allows the next
--          held-back job (ms) or false, and how long no lease is taken back (ms)
--
-- The first caller does the work. Nothing in this script depends on the worker that calls it.
--
-- The string `upkeep` holds the time of the last call (ms) and the time until which no lease is
-- taken back (ms).

local lease, max_lost, consumer_idle, limit =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local includes_global, sweeps = ARGV[5] == '1', ARGV[6] == '1'
local report = {
  promoted = 0, expired = 0, reclaimed = 0, given_up = 0, cancelled = 0, reissued = 0, restored = 0,
  consumers = 0, workers = 0, classes = 0, released = 0,
}
local more = 0

-- Returns the members of a sorted set of times whose time has come.
local function due_ids(set)
  local ids = call('ZRANGE', P .. set, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, limit)
  if #ids == limit then more = 1 end
  return ids
end

local function promote()
  for _, id in ipairs(due_ids('delayed')) do
    call('ZREM', P .. 'delayed', id)
    local job = load_job(id)
    if job and job.state == 'delayed' then
      call('ZREM', P .. 'later:' .. job.tenant, id)
      make_ready(id, job, score_at(NOW, job))
      add_event('ready', id, job)
      report.promoted = report.promoted + 1
    end
  end
end

local function expire()
  for _, id in ipairs(due_ids('expires')) do
    call('ZREM', P .. 'expires', id)
    local job = load_job(id)
    if job and (job.state == 'queued' or job.state == 'delayed') then
      remove_delayed(id, job)
      remove_ready(id, job)
      end_expired(id, job)
      report.expired = report.expired + 1
    end
  end
end

-- Takes back one job whose lease has lapsed.
local function take_back(id)
  local job = load_job(id)
  if not job or job.state ~= 'running' then return end
  end_lease(job.class, job.tenant, id)
  local lost = call('HINCRBY', P .. 'job:' .. id, 'lost', 1)
  -- A late settlement by the former holder of the lease then finds it stale, not settled.
  call('HSET', P .. 'job:' .. id, 'run',
    string.format('- %s %s %s', job.worker, job.started_at, job.score))
  count('lost')
  add_event('lost', id, job, ' worker ' .. job.worker .. ' attempt ' .. job.attempts)
  if job.cancel then
    end_cancelled(id, job)
    report.cancelled = report.cancelled + 1
  elseif lost >= max_lost then
    local message = string.format('%d attempts were lost with their workers', lost)
    local result = queue_result(id, job, 'lost', 'attempts_lost', message)
    end_job(id, job, 'dead', 'lost', result, message)
    write_dead_letter(id, job, 'attempts_lost', message)
    report.given_up = report.given_up + 1
  else
    trim_log(id, job)
    make_ready(id, job, job.score)
    report.reclaimed = report.reclaimed + 1
  end
end

-- Returns how long no lease is taken back. While Redis was unreachable, no worker could renew a
-- lease, but its clock went on. So after a time without a round, which otherwise runs about twice a
-- second, all workers get the length of a lease to renew theirs before any lease is taken back.
local PAUSE_MIN_MS = 1500

local function reclaim_pause()
  local key = P .. 'upkeep'
  local last, till = string.match(call('GET', key) or '', '^(%d+) (%d+)$')
  last, till = tonumber(last) or NOW, tonumber(till) or 0
  if NOW - last > math.max(lease / 3, PAUSE_MIN_MS) then till = NOW + lease end
  -- The clock of Redis was set back.
  if till > NOW + lease then till = 0 end
  call('SET', key, string.format('%s %.0f', NOW_TEXT, till))
  return math.max(till - NOW, 0)
end

-- Takes back the jobs of lapsed leases, and replaces tickets that were read and not bound.
local function reclaim(class)
  local stream, bound = P .. 'tickets:' .. class, P .. 'bound:' .. class
  local idle = redis.pcall('XPENDING', stream, WORKER_GROUP, 'IDLE', lease, '-', '+', limit)
  if idle.err then return end
  if #idle == limit then more = 1 end
  for _, pending in ipairs(idle) do
    local ticket = pending[1]
    local id = leased_id(call('HGET', bound, ticket))
    delete_tickets(class, { ticket })
    if id then
      call('HDEL', bound, ticket)
      take_back(id)
    else
      issue_tickets(class, 1)
      report.reissued = report.reissued + 1
    end
  end
end

-- Finds ready jobs whose tickets were deleted by hand; without this they would wait for ever. The
-- unbound tickets are all entries except the bound ones. If none is left, every ready job needs a
-- ticket. The missing tickets become withheld ones, and are issued with these.
local function restore_tickets(class)
  if call('XLEN', P .. 'tickets:' .. class) > call('HLEN', P .. 'bound:' .. class) then return end
  local missing = -withheld_tickets(class)
  for _, tenant in ipairs(call('ZRANGE', P .. 'fair:' .. class, 0, limit - 1)) do
    missing = missing + call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
  end
  if missing <= 0 then return end
  call('HINCRBY', P .. 'gate', 'owed:' .. class, missing)
  report.restored = report.restored + missing
end

-- Issues tickets for held-back jobs that may start now, because a rate allows them again or a limit
-- was removed. Returns the time until a rate allows the next job (ms), if one does.
local function issue_withheld(class)
  local withheld = withheld_tickets(class)
  if withheld == 0 or call('HEXISTS', P .. 'gate', 'paused') == 1 then return nil end
  local ready, startable, wait = ready_counts(class)
  if ready == 0 then
    call('HDEL', P .. 'gate', 'owed:' .. class)
    return nil
  end
  if ready and withheld > ready then
    withheld = ready
    call('HSET', P .. 'gate', 'owed:' .. class, withheld)
  end
  local unbound = call('XLEN', P .. 'tickets:' .. class) - call('HLEN', P .. 'bound:' .. class)
  local tickets = math.min(withheld, startable - unbound, limit)
  release_tickets(class, tickets)
  if tickets > 0 then report.released = report.released + tickets end
  if tickets == limit then more = 1 end
  return wait
end

-- Removes jobs that do not run from the sets of running jobs; such a job would hold its tenant back
-- for ever.
local function sweep_running()
  for _, tenant in ipairs(call('SRANDMEMBER', P .. 'tenants', limit)) do
    local running = P .. 'running:' .. tenant
    for _, id in ipairs(call('SRANDMEMBER', running, limit)) do
      if call('HGET', P .. 'job:' .. id, 'state') ~= 'running' then call('SREM', running, id) end
    end
  end
end

-- Removes consumers of dead workers; Redis itself never removes one. Removing a consumer drops its
-- pending entries, so only one without any is removed.
local function sweep_consumers(stream, group)
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
  if consumers.err then return end
  for _, flat in ipairs(consumers) do
    local consumer = {}
    for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
    if consumer.pending == 0 and consumer.idle >= consumer_idle
      and call('EXISTS', P .. 'worker:' .. consumer.name) == 0 then
      call('XGROUP', 'DELCONSUMER', stream, group, consumer.name)
      report.consumers = report.consumers + 1
    end
  end
end

-- Forgets a class that had no job for long. Its next job creates it again. Tickets that no worker
-- read are deleted with it: no waiting job could use them.
local function forget_class(class)
  local stream = P .. 'tickets:' .. class
  if call('EXISTS', P .. 'fair:' .. class, P .. 'bound:' .. class) > 0 then return end
  local used = 0
  local flat = redis.pcall('XINFO', 'STREAM', stream)
  for i = 1, #flat, 2 do
    if flat[i] == 'last-generated-id' then used = tonumber(string.match(flat[i + 1], '^(%d+)-')) end
  end
  if NOW - used < CLASS_LIFE_MS then return end
  call('DEL', stream)
  call('SREM', P .. 'classes', class)
  call('SREM', P .. 'sized:' .. tags_of(class), class)
  call('HDEL', P .. 'gate', 'owed:' .. class)
  local tenant = call('HGET', P .. 'bringers', class)
  if tenant then
    call('HDEL', P .. 'bringers', class)
    if call('HINCRBY', P .. 'brought', tenant, -1) <= 0 then
      call('HDEL', P .. 'brought', tenant)
    end
  end
  announce_class(class)
  report.classes = report.classes + 1
end

local function sweep_workers()
  for _, worker in ipairs(call('ZRANGE', P .. 'workers', 0, limit - 1)) do
    if call('EXISTS', P .. 'worker:' .. worker) == 0 then
      call('ZREM', P .. 'workers', worker)
      report.workers = report.workers + 1
    end
  end
end

allow_when_full()
local pause = reclaim_pause()
if includes_global then
  promote()
  flush()
  expire()
  flush()
end
local soonest
for i = 7, #ARGV do
  local class = ARGV[i]
  -- If there are many classes, most of them have neither a ready nor a running job.
  if sweeps or call('EXISTS', P .. 'fair:' .. class, P .. 'bound:' .. class) > 0 then
    if pause == 0 then reclaim(class) end
    flush()
    restore_tickets(class)
    local wait = issue_withheld(class)
    if wait then soonest = math.min(soonest or wait, wait) end
  end
  if sweeps then
    sweep_consumers(P .. 'tickets:' .. class, WORKER_GROUP)
    forget_class(class)
  end
end
if includes_global and sweeps then
  sweep_consumers(P .. 'jobs', ADMIT_GROUP)
  sweep_workers()
  sweep_running()
end
flush()
return {
  report.promoted, report.expired, report.reclaimed, report.given_up, report.cancelled,
  report.reissued, report.restored, report.consumers, report.workers, report.classes,
  report.released, more, soonest and math.ceil(soonest) or false, pause,
}
