-- Upkeep: promotes, expires, takes back what is no longer renewed, and sweeps up after dead workers.
--
-- ARGV     lease_ms, max_lost, how long a consumer must be idle to be removed (ms), most of each
--          kind, 1 to do all that concerns no single class, 1 to sweep too (0: not), then classes
-- Replies  promoted, expired, reaped, given up, cancelled, reissued, mended, consumers removed, workers removed,
--          classes forgotten, owed tickets issued, 1 when there may be more to do, how long until a tenant's rate
--          allows the next held-back job (ms), or false, and how long no lease is taken back (ms)
--
-- Whoever calls first does the work. Nothing here depends on which worker calls.
--
-- The string `upkeep` holds when this was called last (ms), and until when no lease is taken back.

local lease, max_lost, consumer_idle, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local is_first, sweeps = ARGV[5] == '1', ARGV[6] == '1'
local done = {
  promoted = 0, expired = 0, reaped = 0, given_up = 0, cancelled = 0, reissued = 0, mended = 0, consumers = 0,
  workers = 0, classes = 0, released = 0,
}
local more = 0

local function due(set)
  local ids = call('ZRANGE', P .. set, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, most)
  if #ids == most then more = 1 end
  return ids
end

local function promote()
  for _, id in ipairs(due('delayed')) do
    call('ZREM', P .. 'delayed', id)
    local job = load(id)
    if job and job.state == 'delayed' then
      call('ZREM', P .. 'later:' .. job.tenant, id)
      make_ready(id, job, score_at(NOW, job))
      event('ready', id, job)
      done.promoted = done.promoted + 1
    end
  end
end

local function expire()
  for _, id in ipairs(due('expires')) do
    call('ZREM', P .. 'expires', id)
    local job = load(id)
    if job and (job.state == 'queued' or job.state == 'delayed') then
      undelay(id, job)
      unready(id, job)
      expired(id, job)
      done.expired = done.expired + 1
    end
  end
end

-- One job whose lease ran out.
local function take_back(id)
  local job = load(id)
  if not job or job.state ~= 'running' then return end
  leave(job.class, job.tenant, id)
  local lost = call('HINCRBY', P .. 'job:' .. id, 'lost', 1)
  -- Whoever held the lease is told that it is stale, not that it was settled.
  call('HSET', P .. 'job:' .. id, 'run',
    string.format('- %s %s %s', job.worker, job.started_at, job.score))
  count('lost')
  event('lost', id, job, ' worker ' .. job.worker .. ' attempt ' .. job.attempts)
  if job.cancel then
    cancelled(id, job)
    done.cancelled = done.cancelled + 1
  elseif lost >= max_lost then
    local message = string.format('%d attempts were lost with their workers', lost)
    close(id, job, 'dead', 'lost', our_result(id, job, 'lost', 'attempts_lost', message), message)
    dead_letter(id, job, 'attempts_lost', message)
    done.given_up = done.given_up + 1
  else
    cut_log(id, job)
    make_ready(id, job, job.score)
    done.reaped = done.reaped + 1
  end
end

-- While Redis was away no worker could renew a lease, and its clock went on. So after a time
-- without a round, all workers get a lease's time to renew theirs before any is taken back. There
-- is a round about twice a second.
local PAUSE_LEAST_MS = 1500

local function patience()
  local key = P .. 'upkeep'
  local last, till = string.match(call('GET', key) or '', '^(%d+) (%d+)$')
  last, till = tonumber(last) or NOW, tonumber(till) or 0
  if NOW - last > math.max(lease / 3, PAUSE_LEAST_MS) then till = NOW + lease end
  -- Redis' clock was set back.
  if till > NOW + lease then till = 0 end
  call('SET', key, string.format('%s %.0f', NOW_TEXT, till))
  return math.max(till - NOW, 0)
end

local function reap(class)
  local stream, bound = P .. 'tickets:' .. class, P .. 'bound:' .. class
  local idle = redis.pcall('XPENDING', stream, WORKER_GROUP, 'IDLE', lease, '-', '+', most)
  if idle.err then return end
  if #idle == most then more = 1 end
  for _, pending in ipairs(idle) do
    local ticket = pending[1]
    local id = leased(call('HGET', bound, ticket))
    destroy(class, { ticket })
    if id then
      call('HDEL', bound, ticket)
      take_back(id)
    else
      issue(class, 1)
      done.reissued = done.reissued + 1
    end
  end
end

-- A ready job whose ticket somebody deleted would wait for ever. Unbound tickets are all entries but the bound ones;
-- when none is left, every ready job needs one. It is owed first, and given out with those.
local function mend(class)
  if call('XLEN', P .. 'tickets:' .. class) > call('HLEN', P .. 'bound:' .. class) then return end
  local missing = -owed(class)
  for _, tenant in ipairs(call('ZRANGE', P .. 'fair:' .. class, 0, most - 1)) do
    missing = missing + call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
  end
  if missing <= 0 then return end
  call('HINCRBY', P .. 'gate', 'owed:' .. class, missing)
  done.mended = done.mended + missing
end

-- Held-back jobs that may start by now get their tickets: a rate allows them again, or a limit was lifted. Answers how
-- long until a rate allows the next (ms), if one does.
local function release(class)
  local debt = owed(class)
  if debt == 0 or call('HEXISTS', P .. 'gate', 'paused') == 1 then return nil end
  local ready, startable, wait = waiting(class)
  if ready == 0 then
    call('HDEL', P .. 'gate', 'owed:' .. class)
    return nil
  end
  if ready and debt > ready then
    debt = ready
    call('HSET', P .. 'gate', 'owed:' .. class, debt)
  end
  local unbound = call('XLEN', P .. 'tickets:' .. class) - call('HLEN', P .. 'bound:' .. class)
  local tickets = math.min(debt, startable - unbound, most)
  pay(class, tickets)
  if tickets > 0 then done.released = done.released + tickets end
  if tickets == most then more = 1 end
  return wait
end

-- A running set that names a job which does not run would hold its tenant back for ever.
local function sweep_running()
  for _, tenant in ipairs(call('SRANDMEMBER', P .. 'tenants', most)) do
    local running = P .. 'running:' .. tenant
    for _, id in ipairs(call('SRANDMEMBER', running, most)) do
      if call('HGET', P .. 'job:' .. id, 'state') ~= 'running' then call('SREM', running, id) end
    end
  end
end

-- Consumers are never removed by Redis itself. Removing one drops its pending entries, so only an empty one goes.
local function sweep_consumers(stream, group)
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
  if consumers.err then return end
  for _, flat in ipairs(consumers) do
    local consumer = {}
    for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
    if consumer.pending == 0 and consumer.idle >= consumer_idle
      and call('EXISTS', P .. 'worker:' .. consumer.name) == 0 then
      call('XGROUP', 'DELCONSUMER', stream, group, consumer.name)
      done.consumers = done.consumers + 1
    end
  end
end

-- A class that had no job for long; its next job makes it anew. Tickets that no worker read go with
-- it: no job waits that could be theirs.
local function forget(class)
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
    if call('HINCRBY', P .. 'brought', tenant, -1) <= 0 then call('HDEL', P .. 'brought', tenant) end
  end
  tell_class(class)
  done.classes = done.classes + 1
end

local function sweep_workers()
  for _, worker in ipairs(call('ZRANGE', P .. 'workers', 0, most - 1)) do
    if call('EXISTS', P .. 'worker:' .. worker) == 0 then
      call('ZREM', P .. 'workers', worker)
      done.workers = done.workers + 1
    end
  end
end

allow_when_full()
local patient = patience()
if is_first then
  promote()
  flush()
  expire()
  flush()
end
local soonest
for i = 7, #ARGV do
  local class = ARGV[i]
  -- Most classes of many have neither a ready nor a running job.
  if sweeps or call('EXISTS', P .. 'fair:' .. class, P .. 'bound:' .. class) > 0 then
    if patient == 0 then reap(class) end
    flush()
    mend(class)
    local wait = release(class)
    if wait then soonest = math.min(soonest or wait, wait) end
  end
  if sweeps then
    sweep_consumers(P .. 'tickets:' .. class, WORKER_GROUP)
    forget(class)
  end
end
if is_first and sweeps then
  sweep_consumers(P .. 'jobs', ADMIT_GROUP)
  sweep_workers()
  sweep_running()
end
flush()
return {
  done.promoted, done.expired, done.reaped, done.given_up, done.cancelled, done.reissued, done.mended,
  done.consumers, done.workers, done.classes, done.released, more, soonest and math.ceil(soonest) or false,
  patient,
}
