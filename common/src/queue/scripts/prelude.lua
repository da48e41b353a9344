-- Put before every script when the program is built: what several of them do, said once.
--
-- KEYS[1]  the namespace's prefix, "sandhog:{namespace}:". Every key is made from it, so all share one hash tag.
--
-- Time is Redis' own. At maxmemory Redis refuses a script whose first write takes memory, and none after that; so
-- every script that must work on a full Redis begins with a write that frees some (XACK, ZREM, HDEL).
-- The fields of the job record are described in record.rs.

local P = KEYS[1]
local call = redis.call
local clock = call('TIME')
local NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local ADMIT_GROUP = 'admit'
local WORKER_GROUP = 'workers'
local CREDIT_MS = 60000         -- how much later a job one priority level higher may come and still go first
local EVENTS_KEPT = 100000
local DEAD_KEPT = 10000
local CONTROL_KEPT = 1000
local REPLIES_KEPT = 10000
local LOG_ENTRIES_KEPT = 10000
local CLASSES_MOST = 1000       -- each is a stream, and a share of every round of upkeep
local CLASS_LIFE_MS = 3600000   -- how long a class is remembered after its last ticket
local LOG_LIFE_MS = 3600000     -- how long a running job's log outlives its last chunk, at least
local KEEP_LEAST_MS = 1000      -- a result kept for no time at all would be gone before its waiter reads it

local FIELDS = {
  'state', 'class', 'tenant', 'priority', 'enc', 'score', 'attempts', 'lost', 'max_attempts', 'backoff', 'keep',
  'retry_on', 'reply', 'traceparent', 'submitted_at', 'expires_at', 'cancel', 'worker', 'token', 'settled',
  'unique',
}

-- The job's record without its payload, or nil.
local function load(id)
  local values = call('HMGET', P .. 'job:' .. id, unpack(FIELDS))
  if not values[1] then return nil end
  local job = {}
  for i, name in ipairs(FIELDS) do
    job[name] = values[i] or nil
  end
  return job
end

-- A write that changes nothing and that Redis allows at maxmemory: after it, it allows the others too.
local function allow_when_full()
  call('HDEL', P .. 'stats', '')
end

local function count(name)
  call('HINCRBY', P .. 'stats', name, 1)
end

-- One line for dashboards and exporters.
local function event(name, id, job, ...)
  call('XADD', P .. 'events', 'MAXLEN', '~', EVENTS_KEPT, '*',
    'event', name, 'id', id, 'class', job.class, 'tenant', job.tenant, ...)
end

-- One more ticket for a class; its stream and group are made with the class' first one.
local function issue(class)
  if call('SADD', P .. 'classes', class) == 1 then
    redis.pcall('XGROUP', 'CREATE', P .. 'tickets:' .. class, WORKER_GROUP, '0', 'MKSTREAM')
  end
  call('XADD', P .. 'tickets:' .. class, '*', 't', '1')
end

-- Takes a ticket out of the world: acknowledged and deleted together, because XACK alone keeps the entry.
local function destroy(class, ticket)
  call('XACK', P .. 'tickets:' .. class, WORKER_GROUP, ticket)
  call('XDEL', P .. 'tickets:' .. class, ticket)
end

-- Who has a ticket pending: worker and idle time; nil when nobody does.
local function holder(class, ticket)
  local pending = redis.pcall('XPENDING', P .. 'tickets:' .. class, WORKER_GROUP, ticket, ticket, 1)
  if pending.err or #pending == 0 then return nil end
  return pending[1][2]
end

-- Whether this worker holds a lease on this job with this token.
local function held(id, job, class, token, worker)
  return job and job.token == token and job.worker == worker
    and call('HGET', P .. 'bound:' .. class, token) == id
end

local function score_at(ms, job)
  return string.format('%.3f', ms - CREDIT_MS * (tonumber(job.priority) or 0))
end

-- Puts a job into its tenant's ready set, with a ticket; it has waited since `since`, or waits from now. A tenant that
-- had nothing ready joins at the front of the fair order, with no credit for the time it was away.
local function make_ready(id, job, score, since)
  call('HDEL', P .. 'job:' .. id, 'run_at')
  call('HSET', P .. 'job:' .. id, 'state', 'queued', 'score', score, 'ready_at', since or NOW)
  call('ZADD', P .. 'ready:' .. job.class .. ':' .. job.tenant, score, id)
  local fair = P .. 'fair:' .. job.class
  if not call('ZSCORE', fair, job.tenant) then
    local first = call('ZRANGE', fair, 0, 0, 'WITHSCORES')
    call('ZADD', fair, first[2] or 0, job.tenant)
  end
  issue(job.class)
end

-- Takes a job out of its ready set. Its ticket stays, worth nothing: undelivered tickets are never deleted.
local function unready(id, job)
  local ready = P .. 'ready:' .. job.class .. ':' .. job.tenant
  call('ZREM', ready, id)
  if call('EXISTS', ready) == 0 then
    call('ZREM', P .. 'fair:' .. job.class, job.tenant)
  end
end

-- A result of our own making, in the encoding of the job; the shape is outcome.rs's JobResult.
local function our_result(id, job, outcome, code, message)
  local result = {
    id = id,
    outcome = outcome,
    attempts = tonumber(job.attempts) or 0,
    worker = job.worker,
    finished_at_ms = NOW,
  }
  if code then
    result.error = { code = code, message = message }
  end
  if job.enc == 'msgpack' then return cmsgpack.pack(result) end
  return cjson.encode(result)
end

-- Takes a unique key for a job; answers who holds it when that is another one. A holder holds it while it lives, and
-- until `ttl` ms after it took it; a lock whose holder is gone or over is free.
local function take_unique(key, id, ttl)
  local lock = P .. 'unique:' .. key
  local before = call('GET', lock)
  if before and before ~= id then
    if call('PTTL', lock) > 0 then return before end
    local state = call('HGET', P .. 'job:' .. before, 'state')
    if state and state ~= 'finished' and state ~= 'dead' then return before end
  end
  call('SET', lock, id)
  if ttl > 0 then call('HSET', P .. 'job:' .. id, 'unique_until', NOW + ttl) end
  return nil
end

-- Frees a job's unique key at its end, or leaves it to its time.
local function free_unique(id, job)
  if not job.unique then return end
  local lock = P .. 'unique:' .. job.unique
  if call('GET', lock) ~= id then return end
  local left = (tonumber(call('HGET', P .. 'job:' .. id, 'unique_until')) or 0) - NOW
  if left > 0 then call('PEXPIRE', lock, left) else call('DEL', lock) end
end

-- Ends a job: its one result, its record's end, its log's end. `state` is finished or dead.
local function close(id, job, state, outcome, result, ...)
  local record = P .. 'job:' .. id
  local keep = math.max(tonumber(job.keep) or 0, KEEP_LEAST_MS)
  call('ZREM', P .. 'expires', id)
  free_unique(id, job)
  -- A dead letter keeps its payload as long as its record, so that it can be queued again.
  if state == 'finished' then call('HDEL', record, 'payload') end
  call('HDEL', record, 'cancel', 'run_at')
  call('HSET', record, 'state', state, 'outcome', outcome, 'finished_at', NOW, ...)
  call('PEXPIRE', record, keep)
  local key = P .. 'result:' .. id
  if call('EXISTS', key) == 0 then
    call('RPUSH', key, result)
    call('PEXPIRE', key, keep)
    if job.reply then
      local reply = P .. 'reply:' .. job.reply
      call('XADD', reply, 'MAXLEN', '~', REPLIES_KEPT, '*', 'id', id, 'outcome', outcome, 'result', result)
      if call('PTTL', reply) < keep then call('PEXPIRE', reply, keep) end
    end
  end
  local log = P .. 'log:' .. id
  if call('EXISTS', log) == 1 then
    call('XADD', log, '*', 'stream', 'end', 'outcome', outcome)
    call('PEXPIRE', log, keep)
  end
  count('finished_' .. outcome)
  event(state, id, job, 'outcome', outcome, 'worker', job.worker or '', 'attempt', job.attempts)
end

-- The record names its letter, so that one job is found among all dead letters at once.
local function dead_letter(id, job, reason, message)
  local letter = call('XADD', P .. 'dead', 'MAXLEN', '~', DEAD_KEPT, '*',
    'id', id, 'reason', reason, 'error', message, 'class', job.class, 'tenant', job.tenant)
  call('HSET', P .. 'job:' .. id, 'letter', letter)
  count('dead')
end

local function cancelled(id, job)
  close(id, job, 'finished', 'cancelled', our_result(id, job, 'cancelled'))
end

local function expired(id, job)
  close(id, job, 'finished', 'expired', our_result(id, job, 'expired'))
end
