-- Gives a ticket's holder the best ready job of the ticket's class, and with it the lease.
--
-- ARGV     worker, class, ticket
-- Replies  {'nothing'}: the ticket is destroyed, or was not this worker's
--          {'again'}: many jobs were expired on the way; call again
--          {'bound', id, payload, encoding, attempts, lost, max_attempts, backoff_ms, keep_ms, tenant,
--           retry_on or false, traceparent or false, submitted_at, how long it had been ready (ms), cancel (0 or 1)}
--
-- The best job is the first by score of the tenant that is furthest behind its fair share. The ticket's pending
-- entry is the lease; binding starts its time anew.

local worker, class, ticket = ARGV[1], ARGV[2], ARGV[3]
local MOST_EXPIRED = 64
local bound = P .. 'bound:' .. class
local fair = P .. 'fair:' .. class

local function reply(id, job)
  local times = call('HMGET', P .. 'job:' .. id, 'started_at', 'ready_at')
  local waited = (tonumber(times[1]) or 0) - (tonumber(times[2]) or NOW)
  return {
    'bound', id, call('HGET', P .. 'job:' .. id, 'payload'), job.enc, job.attempts, job.lost, job.max_attempts,
    job.backoff, job.keep, job.tenant, job.retry_on or false, job.traceparent or false, job.submitted_at,
    math.max(waited, 0), job.cancel and 1 or 0,
  }
end

local before = call('HGET', bound, ticket)
if before then
  local job = load(before)
  if held(before, job, class, ticket, worker) then return reply(before, job) end
  return { 'nothing' }
end
if holder(class, ticket) ~= worker then return { 'nothing' } end

-- The tenant whose turn it is and its best job, taken out of the ready set; nil when nothing is ready.
local function take()
  while true do
    local tenant = call('ZRANGE', fair, 0, 0)[1]
    if not tenant then return nil end
    local ready = P .. 'ready:' .. class .. ':' .. tenant
    local id = call('ZRANGE', ready, 0, 0)[1]
    if id then
      call('ZREM', ready, id)
      if call('EXISTS', ready) == 0 then
        call('ZREM', fair, tenant)
      else
        local weight = tonumber(call('HGET', P .. 'tenant:' .. tenant, 'weight')) or 1
        call('ZINCRBY', fair, 1 / math.max(weight, 0.001), tenant)
      end
      return id
    end
    call('ZREM', fair, tenant)
  end
end

for _ = 1, MOST_EXPIRED do
  local id = take()
  if not id then
    destroy(class, ticket)
    return { 'nothing' }
  end
  local job = load(id)
  if job and job.expires_at and job.attempts == '0' and tonumber(job.expires_at) <= NOW then
    expired(id, job)
  elseif job then
    local record = P .. 'job:' .. id
    call('XCLAIM', P .. 'tickets:' .. class, WORKER_GROUP, worker, 0, ticket, 'JUSTID')
    call('ZREM', P .. 'expires', id)
    call('HSET', bound, ticket, id)
    job.attempts = tostring(call('HINCRBY', record, 'attempts', 1))
    call('HSET', record, 'state', 'running', 'worker', worker, 'token', ticket, 'started_at', NOW)
    event('started', id, job, 'worker', worker, 'attempt', job.attempts)
    return reply(id, job)
  end
end
return { 'again' }
