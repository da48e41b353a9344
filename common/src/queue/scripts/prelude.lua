-- Put before every script when the program is built: what several of them do, said once. It stands behind ground.lua.
--
-- At maxmemory Redis refuses a script whose first write takes memory, and none after that; so every script that must
-- work on a full Redis begins with a write that frees some (XACK, ZREM, HDEL).
-- The fields of the job record are described in record.rs.
--
-- Most of what a script costs is the number of commands it gives. So what many jobs of one call have in common is
-- gathered and written once, by flush(), which every script that changes anything calls last.

-- What never changes of a job is one field, `spec`, because a record is read more often than it is written and every
-- field costs. These of its words, parted by one space, matter here; the ones behind them are the worker's.
local SPEC = '^(%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) '

-- Ids and unique keys that begin so belong to schedules.
local RESERVED = 'cron:'
local function is_reserved(name)
  return string.sub(name, 1, #RESERVED) == RESERVED
end

local function given(text)
  return text ~= '' and text
end

-- A job that has only just begun; `more` is what its record holds beside its spec. One constructor with every field,
-- so that the table is made in one piece.
local function open(spec, more)
  local submitted_at, class, tenant, priority, enc, keep, reply, unique, unique_ttl = string.match(spec, SPEC)
  return {
    spec = spec, submitted_at = submitted_at, class = class, tenant = tenant, priority = priority, enc = enc,
    keep = keep, reply = given(reply), unique = given(unique), unique_ttl = unique_ttl,
    state = more[2], attempts = more[3] or '0', lost = more[4] or '0', cancel = more[6], expires_at = more[7],
    log = more[8], token = more.token, worker = more.worker, started_at = more.started_at, score = more.score,
  }
end

-- The job's record without its payload, or nil. `run` is of the running or last attempt: token, worker, when it
-- started, and the job's place in the ready set, so that it can go back there.
local function load(id)
  local values = call('HMGET', P .. 'job:' .. id, 'spec', 'state', 'attempts', 'lost', 'run', 'cancel', 'expires_at',
    'log')
  if not values[1] then return nil end
  if values[5] then
    values.token, values.worker, values.started_at, values.score =
      string.match(values[5], '^(%S+) (%S+) (%S+) (%S+)$')
  end
  return open(values[1], values)
end

-- A write that changes nothing and that Redis allows at maxmemory: after it, it allows the others too.
local function allow_when_full()
  call('HDEL', P .. 'stats', '')
end

local counts = {}
local function count(name)
  counts[name] = (counts[name] or 0) + 1
end

-- One line for dashboards and exporters. Each field of an entry is one event: its name, and what there is to say, by
-- name and value, parted by spaces.
local events = {}
local function event(name, id, job, more)
  events[#events + 1] = name
  events[#events + 1] = 'id ' .. id .. ' class ' .. job.class .. ' tenant ' .. job.tenant .. (more or '')
end

-- Tells every worker that a class came into use, or is forgotten.
local function tell_class(class)
  call('XADD', P .. 'control', 'MAXLEN', '~', CONTROL_KEPT, '*', 'op', 'class', 'class', class)
end

-- More tickets for a class; its stream and group are made with the class' first one.
local function issue(class, most)
  local stream = P .. 'tickets:' .. class
  if call('SADD', P .. 'classes', class) == 1 then
    redis.pcall('XGROUP', 'CREATE', stream, WORKER_GROUP, '0', 'MKSTREAM')
    tell_class(class)
  end
  for _ = 1, most do call('XADD', stream, '*', 't', '1') end
end

-- The stream id after the latest of these; nil when it does not fit Lua's numbers.
local function after_all(ids)
  local last_ms, last_seq = -1, -1
  for _, id in ipairs(ids) do
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    if #ms > 15 or #seq > 15 then return nil end
    ms, seq = tonumber(ms), tonumber(seq)
    if ms > last_ms or (ms == last_ms and seq > last_seq) then last_ms, last_seq = ms, seq end
  end
  return string.format('%.0f-%.0f', last_ms, last_seq + 1)
end

-- Acknowledges entries and, when all of them were pending, deletes them: together, because XACK alone keeps an entry.
-- Answers whether it did.
--
-- XDEL looks for each entry from the beginning of its node. When nothing up to the last of these entries is pending
-- any more, then all of it was delivered and is settled, and cutting the stream off behind it takes one pass.
local function remove(stream, group, ids)
  if call('XACK', stream, group, unpack(ids)) < #ids then return false end
  local after = #ids > 2 and after_all(ids)
  if after and #call('XPENDING', stream, group, '-', after, 1) == 0 then
    call('XTRIM', stream, 'MINID', '=', after)
  else
    call('XDEL', stream, unpack(ids))
  end
  return true
end

-- Takes tickets out of the world, pending or not.
local function destroy(class, tickets)
  local stream = P .. 'tickets:' .. class
  if #tickets > 0 and not remove(stream, WORKER_GROUP, tickets) then
    call('XDEL', stream, unpack(tickets))
  end
end

-- Who has a ticket pending, and for how long (ms); nil when nobody does.
local function holder(class, ticket)
  local pending = redis.pcall('XPENDING', P .. 'tickets:' .. class, WORKER_GROUP, ticket, ticket, 1)
  if pending.err or #pending == 0 then return nil end
  return pending[1][2], pending[1][3]
end

-- What its class' table of leases has for a token: the job, its worker, the attempt, whether the job has a log (1, or -),
-- and its spec. So most settlements need not read the job's record.
local function lease_entry(id, worker, attempt, log, spec)
  return id .. ' ' .. worker .. ' ' .. attempt .. ' ' .. (log or '-') .. ' ' .. spec
end

local function lease_of(class, token)
  return call('HGET', P .. 'bound:' .. class, token)
end

-- The job that an entry of the table is for.
local function leased(entry)
  return entry and string.match(entry, '^%S+')
end

-- The running job of an entry, as load() has it but for what only the record tells; nil when it is not this worker's
-- lease on this job.
local function leased_job(entry, id, token, worker)
  local of, who, attempt, log, spec = string.match(entry or '', '^(%S+) (%S+) (%S+) (%S+) (.*)$')
  if of ~= id or who ~= worker then return nil end
  return open(spec, {
    [2] = 'running', [3] = attempt, [8] = log == '1' and log, token = token, worker = worker,
  })
end

-- Whether this worker holds a lease on this job with this token; `entry` is what its class' table of leases has for
-- the token.
local function held(id, job, token, worker, entry)
  return job and job.state == 'running' and job.token == token and job.worker == worker and leased(entry) == id
end

local function score_at(ms, job)
  return string.format('%.3f', ms - CREDIT_MS * (tonumber(job.priority) or 0))
end

-- Jobs that flush() puts into their tenants' ready sets: class, then tenant, then scores and ids.
local arriving = {}
local function arrive(id, job, score)
  local tenants = arriving[job.class]
  if not tenants then
    tenants = {}
    arriving[job.class] = tenants
  end
  local members = tenants[job.tenant]
  if not members then
    members = {}
    tenants[job.tenant] = members
  end
  members[#members + 1] = score
  members[#members + 1] = id
end

-- Makes a job that was something else ready; it waits from now. It has its ticket after flush().
local function make_ready(id, job, score)
  local record = P .. 'job:' .. id
  if job.state == 'delayed' then call('HDEL', record, 'run_at') end
  call('HSET', record, 'state', 'queued', 'ready_at', NOW_TEXT)
  job.state = 'queued'
  arrive(id, job, score)
end

-- Leases that ended, which flush() takes off their tenants' running jobs: class, then tenant, then ids.
local leaving = {}
local function leave(class, tenant, id)
  leaving[class] = leaving[class] or {}
  leaving[class][tenant] = leaving[class][tenant] or {}
  local ids = leaving[class][tenant]
  ids[#ids + 1] = id
end

-- Tickets that a class is owed: destroyed because every ready job's tenant was at one of its limits. Unbound tickets
-- and owed ones together are never fewer than the ready jobs of the class.
local function owed(class)
  return tonumber(call('HGET', P .. 'gate', 'owed:' .. class)) or 0
end

local function pay(class, tickets)
  if tickets <= 0 then return end
  if call('HINCRBY', P .. 'gate', 'owed:' .. class, -tickets) <= 0 then call('HDEL', P .. 'gate', 'owed:' .. class) end
  issue(class, tickets)
end

-- Where a tenant may run only so many jobs, one that ended makes room for one that was held back.
local function make_room(class, tenants)
  local debt = owed(class)
  for tenant, ids in pairs(tenants) do
    call('SREM', P .. 'running:' .. tenant, unpack(ids))
    if debt > 0 and call('HEXISTS', P .. 'tenant:' .. tenant, 'max_running') == 1 then
      local tickets = math.min(debt, #ids)
      debt = debt - tickets
      pay(class, tickets)
    end
  end
end

-- How far a start sets a tenant back in the fair order.
local function step_of(weight)
  return 1 / math.max(tonumber(weight) or 1, 0.001)
end

-- A tenant has nothing ready any more, and leaves the fair order at this place.
local function part(class, tenant, score)
  local debts = P .. 'debt:' .. class
  if call('ZADD', debts, score, tenant) == 1 then
    call('ZREMRANGEBYRANK', debts, 0, -DEBTS_KEPT - 1)
    call('PEXPIRE', debts, DEBT_LIFE_MS)
  end
end

-- Where a tenant is that comes back: at the front, with no credit for the time it was away; or where it left, while the
-- others have not come so far, or it would get a turn for each job that it brings by itself. Nobody who leaves is further
-- behind than one start; what says more is of an order that has begun anew meanwhile.
local function place(class, tenant, first)
  local debt = tonumber(call('ZSCORE', P .. 'debt:' .. class, tenant) or first)
  if debt <= first then return first end
  return math.min(debt, first + step_of(call('HGET', P .. 'tenant:' .. tenant, 'weight')))
end

-- The tags of a class, which are its name when its jobs are of the ordinary size.
local function tags_of(class)
  return string.match(class, '^[^~]*')
end

-- A tenant that had nothing ready joins the fair order. `sized:<tags>` holds the sizes in which somebody does.
local function join(class, tenant)
  local fair = P .. 'fair:' .. class
  if call('ZSCORE', fair, tenant) then return end
  local first = call('ZRANGE', fair, 0, 0, 'WITHSCORES')[2]
  call('ZADD', fair, first and place(class, tenant, tonumber(first)) or 0, tenant)
  local tags = tags_of(class)
  if not first and tags ~= class then call('SADD', P .. 'sized:' .. tags, class) end
end

-- Writes what was gathered of tenants' running and ready jobs; before a script looks at what it changed itself.
local function settle_ready()
  for class, tenants in pairs(leaving) do make_room(class, tenants) end
  leaving = {}
  for class, tenants in pairs(arriving) do
    local tickets = 0
    for tenant, members in pairs(tenants) do
      call('ZADD', P .. 'ready:' .. class .. ':' .. tenant, unpack(members))
      join(class, tenant)
      tickets = tickets + #members / 2
    end
    issue(class, tickets)
  end
  arriving = {}
end

-- Writes all that was gathered. The last thing a script does.
local function flush()
  settle_ready()
  for name, times in pairs(counts) do
    call('HINCRBY', P .. 'stats', name, times)
  end
  counts = {}
  for i = 1, #events, 2 * EVENTS_TOGETHER do
    call('XADD', P .. 'events', 'MAXLEN', '~', EVENTS_KEPT, '*',
      unpack(events, i, math.min(i + 2 * EVENTS_TOGETHER - 1, #events)))
  end
  events = {}
end

-- Takes a job out of those whose time has not come.
local function undelay(id, job)
  call('ZREM', P .. 'delayed', id)
  call('ZREM', P .. 'later:' .. job.tenant, id)
end

-- Takes a job out of its ready set. Its ticket stays, worth nothing: undelivered tickets are never deleted.
local function unready(id, job)
  local ready = P .. 'ready:' .. job.class .. ':' .. job.tenant
  call('ZREM', ready, id)
  if call('EXISTS', ready) == 1 then return end
  local fair = P .. 'fair:' .. job.class
  local score = call('ZSCORE', fair, job.tenant)
  call('ZREM', fair, job.tenant)
  if score and call('EXISTS', fair) == 1 then part(job.class, job.tenant, score) end
end
