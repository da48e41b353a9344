-- Helper functions that several scripts share.
--
-- This file is put after ground.lua and before every script that uses it (see script.rs) when the
-- program is built. It takes no arguments.
--
-- At maxmemory, Redis rejects a script if its first write needs memory; it does not check the later
-- writes. So every script that must work on a full Redis begins with a write that frees memory
-- (XACK, ZREM, HDEL). The fields of the job record are described in record.rs.
--
-- The cost of a script is mostly the number of its commands. So the writes that many jobs of one
-- call have in common are collected, and flush() writes them at once. Every script that changes
-- anything calls flush() last.

-- The unchanging part of a job is one field of its record, `spec`, because a record is read more
-- often than it is written and every field costs. The words of the field are separated by one
-- space. The scripts use these nine words; the words after them are for the worker only.
local SPEC = '^(%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) '

-- Prefix of the job ids and unique keys that only schedules may use.
local RESERVED = 'cron:'
local function is_reserved(name)
  return string.sub(name, 1, #RESERVED) == RESERVED
end

local function given(text)
  return text ~= '' and text
end

-- Builds a job from its spec. `more` holds the other fields of its record, with the indices that
-- load() uses, and the facts of its attempt. One constructor sets all fields, so that Lua allocates
-- the table once.
local function open(spec, more)
  local submitted_at, class, tenant, priority, enc, keep, reply, unique, unique_ttl =
    string.match(spec, SPEC)
  return {
    spec = spec, submitted_at = submitted_at, class = class, tenant = tenant, priority = priority,
    enc = enc, keep = keep, reply = given(reply), unique = given(unique), unique_ttl = unique_ttl,
    state = more[2], attempts = more[3] or '0', lost = more[4] or '0', cancel = more[6],
    expires_at = more[7], log = more[8], token = more.token, worker = more.worker,
    started_at = more.started_at, score = more.score,
  }
end

-- Returns the job's record without its payload, or nil. The field `run` describes the running or
-- last attempt: its token, worker and start time, and the job's score in the ready set, so that the
-- job can go back to its place.
local function load(id)
  local values = call('HMGET', P .. 'job:' .. id, 'spec', 'state', 'attempts', 'lost', 'run',
    'cancel', 'expires_at', 'log')
  if not values[1] then return nil end
  if values[5] then
    values.token, values.worker, values.started_at, values.score =
      string.match(values[5], '^(%S+) (%S+) (%S+) (%S+)$')
  end
  return open(values[1], values)
end

-- Does a write that changes nothing and that Redis allows at maxmemory, so that Redis also allows
-- the later writes.
local function allow_when_full()
  call('HDEL', P .. 'stats', '')
end

local counts = {}
local function count(name)
  counts[name] = (counts[name] or 0) + 1
end

-- Events for dashboards and exporters. Each field of a stream entry is one event: the field's name
-- is the event's name, and its value is a list of names and values, separated by spaces.
local events = {}
local function event(name, id, job, more)
  events[#events + 1] = name
  events[#events + 1] = 'id ' .. id .. ' class ' .. job.class .. ' tenant ' .. job.tenant
    .. (more or '')
end

-- Notifies all workers that a class came into use or was forgotten.
local function tell_class(class)
  call('XADD', P .. 'control', 'MAXLEN', '~', CONTROL_KEPT, '*', 'op', 'class', 'class', class)
end

-- Issues `most` tickets for a class. If the class is new, creates its stream and group and notifies
-- the workers.
local function issue(class, most)
  local stream = P .. 'tickets:' .. class
  if call('SADD', P .. 'classes', class) == 1 then
    redis.pcall('XGROUP', 'CREATE', stream, WORKER_GROUP, '0', 'MKSTREAM')
    tell_class(class)
  end
  for _ = 1, most do call('XADD', stream, '*', 't', '1') end
end

-- Returns the stream id after the latest of these ids; nil if one of them does not fit Lua's
-- numbers.
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

-- Acknowledges entries. If all of them were pending, also deletes them and returns true. Both are
-- one step, because an entry that is only acknowledged stays in the stream.
--
-- XDEL searches for each entry from the beginning of its node. If no entry up to the last one is
-- pending any more, all entries up to it were delivered and are settled, and trimming the stream up
-- to it takes one pass.
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

-- Deletes tickets, pending or not.
local function destroy(class, tickets)
  local stream = P .. 'tickets:' .. class
  if #tickets > 0 and not remove(stream, WORKER_GROUP, tickets) then
    call('XDEL', stream, unpack(tickets))
  end
end

-- Returns the worker that has a ticket pending, and for how long (ms); nil if no worker has.
local function holder(class, ticket)
  local pending = redis.pcall('XPENDING', P .. 'tickets:' .. class, WORKER_GROUP, ticket, ticket, 1)
  if pending.err or #pending == 0 then return nil end
  return pending[1][2], pending[1][3]
end

-- Builds the value of a token in the table of leases of a class, `bound:<class>`: the job's id, the
-- worker, the attempt, 1 if the job has a log or else -, and the job's spec. With it, most
-- settlements need not read the job's record.
local function lease_entry(id, worker, attempt, log, spec)
  return id .. ' ' .. worker .. ' ' .. attempt .. ' ' .. (log or '-') .. ' ' .. spec
end

local function lease_of(class, token)
  return call('HGET', P .. 'bound:' .. class, token)
end

-- Returns the id of the job that an entry of the table is for.
local function leased(entry)
  return entry and string.match(entry, '^%S+')
end

-- Returns the running job of an entry, as load() does but without the fields that only the record
-- has; nil if the entry is not this worker's lease on this job.
local function leased_job(entry, id, token, worker)
  local of, who, attempt, log, spec = string.match(entry or '', '^(%S+) (%S+) (%S+) (%S+) (.*)$')
  if of ~= id or who ~= worker then return nil end
  return open(spec, {
    [2] = 'running', [3] = attempt, [8] = log == '1' and log, token = token, worker = worker,
  })
end

-- Returns whether this worker holds a lease on this job with this token. `entry` is the value of
-- the token in the table of leases of the class.
local function held(id, job, token, worker, entry)
  return job and job.state == 'running' and job.token == token and job.worker == worker
    and leased(entry) == id
end

local function score_at(ms, job)
  return string.format('%.3f', ms - CREDIT_MS * (tonumber(job.priority) or 0))
end

-- Jobs that flush() adds to the ready sets of their tenants: by class, then by tenant, scores and
-- ids in turn.
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

-- Makes a job ready that was in another state. Its waiting time begins now. flush() issues its
-- ticket.
local function make_ready(id, job, score)
  local record = P .. 'job:' .. id
  if job.state == 'delayed' then call('HDEL', record, 'run_at') end
  call('HSET', record, 'state', 'queued', 'ready_at', NOW_TEXT)
  job.state = 'queued'
  arrive(id, job, score)
end

-- Ended leases. flush() removes their jobs from the running jobs of their tenants: by class, then
-- by tenant, ids.
local leaving = {}
local function leave(class, tenant, id)
  leaving[class] = leaving[class] or {}
  leaving[class][tenant] = leaving[class][tenant] or {}
  local ids = leaving[class][tenant]
  ids[#ids + 1] = id
end

-- Returns the number of tickets that a class is owed. They were destroyed because the tenants of
-- all ready jobs were at their limits, or because the queue was paused. Unbound tickets and owed
-- ones together are never fewer than the ready jobs of the class.
local function owed(class)
  return tonumber(call('HGET', P .. 'gate', 'owed:' .. class)) or 0
end

local function pay(class, tickets)
  if tickets <= 0 then return end
  if call('HINCRBY', P .. 'gate', 'owed:' .. class, -tickets) <= 0 then
    call('HDEL', P .. 'gate', 'owed:' .. class)
  end
  issue(class, tickets)
end

-- Removes ended jobs from the running jobs of their tenants. If a tenant has a limit of running
-- jobs, each ended job lets a held-back one start, so one owed ticket is issued for it.
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

-- Returns how far a start sets a tenant back in the fair order.
local function step_of(weight)
  return 1 / math.max(tonumber(weight) or 1, 0.001)
end

-- Records the place at which a tenant leaves the fair order, because it has no ready job any more.
local function part(class, tenant, score)
  local debts = P .. 'debt:' .. class
  if call('ZADD', debts, score, tenant) == 1 then
    call('ZREMRANGEBYRANK', debts, 0, -DEBTS_KEPT - 1)
    call('PEXPIRE', debts, DEBT_LIFE_MS)
  end
end

-- Returns the place in the fair order of a tenant that comes back. Usually this is the front,
-- without credit for the time of its absence. If the other tenants have not yet reached the place
-- at which it left, it gets that place again; otherwise a tenant that submits its jobs one by one
-- would get a turn for each of them. A tenant leaves at most one start behind the front; a greater
-- recorded place belongs to an order that has begun anew since then.
local function place(class, tenant, first)
  local debt = tonumber(call('ZSCORE', P .. 'debt:' .. class, tenant) or first)
  if debt <= first then return first end
  return math.min(debt, first + step_of(call('HGET', P .. 'tenant:' .. tenant, 'weight')))
end

-- Returns the tags of a class. They are its whole name if its jobs have the default size.
local function tags_of(class)
  return string.match(class, '^[^~]*')
end

-- Adds a tenant that had no ready job to the fair order. `sized:<tags>` holds the classes of these
-- tags with another size in which a tenant has ready jobs.
local function join(class, tenant)
  local fair = P .. 'fair:' .. class
  if call('ZSCORE', fair, tenant) then return end
  local first = call('ZRANGE', fair, 0, 0, 'WITHSCORES')[2]
  call('ZADD', fair, first and place(class, tenant, tonumber(first)) or 0, tenant)
  local tags = tags_of(class)
  if not first and tags ~= class then call('SADD', P .. 'sized:' .. tags, class) end
end

-- Writes the collected changes of tenants' running and ready jobs. A script calls it before it
-- reads what it has changed itself.
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

-- Writes all collected changes. A script calls it last.
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

-- Removes a job from the delayed jobs.
local function undelay(id, job)
  call('ZREM', P .. 'delayed', id)
  call('ZREM', P .. 'later:' .. job.tenant, id)
end

-- Removes a job from its ready set. Its ticket stays but is worth nothing: undelivered tickets are
-- never deleted.
local function unready(id, job)
  local ready = P .. 'ready:' .. job.class .. ':' .. job.tenant
  call('ZREM', ready, id)
  if call('EXISTS', ready) == 1 then return end
  local fair = P .. 'fair:' .. job.class
  local score = call('ZSCORE', fair, job.tenant)
  call('ZREM', fair, job.tenant)
  if score and call('EXISTS', fair) == 1 then part(job.class, job.tenant, score) end
end
