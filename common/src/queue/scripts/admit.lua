-- Turns intake entries into jobs, or into dead letters.
--
-- ARGV     for each entry, in order, 9 values:
--          verdict (accept or reject), entry id, job id ('' for the entry's own), payload, spec without its first
--          field (submitted_at), delay_ms (0 for none), at_ms (0 for none), ttl_ms (0 for none), and for reject:
--          error code and message, parted by a space.
-- Replies  for each entry: what became of it (admitted, rejected, cancelled, duplicate, gone), and the job's id.
--
-- An entry is admitted by whoever acknowledges it. A job is admitted once by its id, for as long as its record lasts;
-- one that was turned away, because its tenant had no place for it or another held its key, may come again.

local STRIDE = 9
local jobs = P .. 'jobs'

-- The entry's own time, which keeps jobs in the order of submission whoever admits them; never in the future,
-- because a producer may have made up its stream id.
local function submitted(entry)
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if ms > NOW then return NOW, 0 end
  return ms, math.min(seq, 999)
end

-- As score_at() has it, with a fraction for those of one millisecond, most of which come in a row.
local last_ms, last_priority, last_score
local function score_of(ms, fraction, job)
  if ms ~= last_ms or job.priority ~= last_priority then
    last_ms, last_priority, last_score = ms, job.priority, string.format('%.0f', ms - CREDIT_MS * tonumber(job.priority))
  end
  return string.format('%s.%03d', last_score, fraction)
end

-- Results of malformed entries that one reply stream gets in an hour: its name is no secret between
-- submitters, and more of them would push other results out.
local REFUSED_REPLIES = 1000
local REFUSED_LIFE_MS = 3600000

local function may_reply(reply)
  local refused = P .. 'refused:' .. reply
  local times = call('INCR', refused)
  if times == 1 then call('PEXPIRE', refused, REFUSED_LIFE_MS) end
  return times <= REFUSED_REPLIES
end

-- `usual`: nothing is wrong with the job, so there is no dead letter to look at.
local function refuse(id, job, code, message, usual)
  if job.reply and not usual and not may_reply(job.reply) then
    job.reply = nil
    count('replies_withheld')
  end
  call('HSET', P .. 'job:' .. id, 'spec', job.spec)
  local result = our_result(id, job, 'rejected', code, message)
  if usual then
    close(id, job, 'finished', 'rejected', result, message)
  else
    close(id, job, 'dead', 'rejected', result, message)
    dead_letter(id, job, code, message, ':refused')
  end
  return 'rejected'
end

-- Makes way for a job that was turned away before, with its record and its result. Answers whether it did.
local function makes_way(id)
  local record = P .. 'job:' .. id
  local known = call('HMGET', record, 'state', 'ended', 'attempts')
  if known[1] ~= 'finished' or known[3] or not string.find(known[2] or '', '^rejected ') then return false end
  call('DEL', record, P .. 'result:' .. id)
  return true
end

-- Returns why a job may not bring its class into use; nil when it may, or the class is in use.
-- Looked up once a call for each class and tenant. `bringers` has the tenant that brought each
-- class, `brought` the number of classes of each tenant.
local in_use, unwelcome = {}, {}
local function is_unwelcome(class, tenant)
  if in_use[class] then return nil end
  local key = class .. ' ' .. tenant
  if unwelcome[key] ~= nil then return unwelcome[key] end
  local classes, why = P .. 'classes', false
  if call('SISMEMBER', classes, class) == 0 then
    if call('SCARD', classes) >= CLASSES_MOST then
      why = string.format('class "%s" would be one more than the %d in use', class, CLASSES_MOST)
    elseif (tonumber(call('HGET', P .. 'brought', tenant)) or 0) >= CLASSES_EACH then
      why = string.format('class "%s" would be one more than the %d that tenant "%s" has in use', class,
        CLASSES_EACH, tenant)
    else
      call('HSET', P .. 'bringers', class, tenant)
      call('HINCRBY', P .. 'brought', tenant, 1)
    end
  end
  if not why then
    issue(class, 0)
    in_use[class] = true
  end
  unwelcome[key] = why
  return why
end

-- How long after its time a job is ready, at most, while there is upkeep.
local LATE_MS = 10000

-- How many more jobs of a tenant may wait. Reckoned once a call, and counted down by it. Where there is a limit,
-- `later:<tenant>` has the jobs that were submitted with a delay, until they are ready.
local places = {}
local function has_place(tenant)
  local left = places[tenant]
  if left == nil then
    local most = tonumber(call('HGET', P .. 'tenant:' .. tenant, 'max_queued'))
    left = most or math.huge
    if most then
      local later = P .. 'later:' .. tenant
      call('ZREMRANGEBYSCORE', later, '-inf', NOW - LATE_MS)
      left = left - call('ZCARD', later)
      for _, class in ipairs(call('SMEMBERS', P .. 'classes')) do
        left = left - call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
      end
    end
  end
  places[tenant] = left - 1
  return left > 0
end

-- A job's time comes later; has_place() was asked for it.
local function delay_until(id, tenant, run_at)
  call('ZADD', P .. 'delayed', run_at, id)
  if places[tenant] == math.huge then return end
  local later = P .. 'later:' .. tenant
  call('ZADD', later, run_at, id)
  call('PEXPIREAT', later, run_at + LATE_MS, 'NX')
  call('PEXPIREAT', later, run_at + LATE_MS, 'GT')
end

-- A name that begins with "cron:" is a schedule's. schedule_fire.lua notes each entry that it
-- writes in the hash `firings`, which a client that may only XADD to the intake cannot write. These
-- are the entries that stand there, as a list and by id, and the ids that other entries tried to
-- take. The result of such an entry is under its stream id, so that the firing keeps its name.
local firings, fired, forged = {}, {}, {}

-- Whether anybody has asked for one of these jobs to be cancelled before it was admitted.
local noted

local function admit(verdict, entry, id, payload, rest, delay, at, ttl, why)
  local ms, fraction = submitted(entry)
  local spec = string.format('%.0f %s', ms, rest)
  local job = open(spec, {})
  local record = P .. 'job:' .. id
  if verdict == 'reject' then
    return refuse(id, job, string.match(why, '^(%S*) (.*)$'))
  end
  local taken = forged[entry] or (job.unique and is_reserved(job.unique) and not fired[entry] and job.unique)
  if taken then
    job.unique = false
    local message = string.format('"%s" begins with "%s", which only schedules may use', taken, RESERVED)
    return refuse(id, job, 'bad_id', message)
  end
  local unwelcome_why = is_unwelcome(job.class, job.tenant)
  if unwelcome_why then return refuse(id, job, 'too_many_classes', unwelcome_why) end
  -- Before the lock: a cancelled job never holds it.
  local cancel = noted and call('DEL', P .. 'cancelled:' .. id) == 1
  if not cancel and not has_place(job.tenant) then
    count('refused_backlog')
    job.unique = false
    local message = string.format('tenant "%s" has as many jobs waiting as it may have', job.tenant)
    return refuse(id, job, 'backlog_full', message, true)
  end
  if job.unique and not cancel then
    local holder = take_unique(job.unique, id, tonumber(job.unique_ttl))
    if holder then
      local message = string.format('job "%s" holds the unique key "%s"', holder, job.unique)
      job.unique = false
      count('refused_unique')
      return refuse(id, job, 'duplicate', message, true)
    end
  end
  count('admitted')
  event('admitted', id, job)

  -- A cancel that was admitted before its job left a note.
  if cancel then
    call('HSET', record, 'spec', spec)
    cancelled(id, job)
    return 'cancelled'
  end

  local run_at = tonumber(at)
  if run_at == 0 then run_at = ms + tonumber(delay) end
  if run_at > NOW then
    call('HSET', record, 'spec', spec, 'state', 'delayed', 'payload', payload, 'run_at', run_at)
    delay_until(id, job.tenant, run_at)
  else
    call('HSET', record, 'spec', spec, 'state', 'queued', 'payload', payload)
    arrive(id, job, score_of(ms, fraction, job))
  end
  if ttl ~= '0' then
    local expires_at = ms + tonumber(ttl)
    call('HSET', record, 'expires_at', expires_at)
    call('ZADD', P .. 'expires', expires_at, id)
  end
  return 'admitted'
end

local entries, ids, records, notes = {}, {}, {}, {}
for i = 2, #ARGV, STRIDE do
  local n = #entries + 1
  local name = ARGV[i + 1]
  entries[n] = ARGV[i]
  if is_reserved(name) then
    if call('HGET', P .. 'firings', ARGV[i]) == name then
      firings[#firings + 1] = ARGV[i]
      fired[ARGV[i]] = true
    else
      forged[ARGV[i]] = name
      name = ''
    end
  end
  ids[n] = name == '' and ARGV[i] or name
  records[n] = P .. 'job:' .. ids[n]
  notes[n] = P .. 'cancelled:' .. ids[n]
end
-- When some were not pending, each entry is asked for by itself: who deletes it admits it.
local all = remove(jobs, ADMIT_GROUP, entries)
if #firings > 0 then call('HDEL', P .. 'firings', unpack(firings)) end

-- Nearly always none of them is known.
noted = call('EXISTS', unpack(notes)) > 0
local known = call('EXISTS', unpack(records)) > 0
local seen = {}

local replies = {}
for i, entry in ipairs(entries) do
  local first = (i - 1) * STRIDE + 1
  local id = ids[i]
  local became
  if not all and call('XDEL', jobs, entry) == 0 then
    became = 'gone'
  elseif seen[id] or (known and call('EXISTS', records[i]) == 1 and not makes_way(id)) then
    became = 'duplicate'
    count('duplicates')
  else
    seen[id] = true
    became = admit(ARGV[first], entry, id, unpack(ARGV, first + 3, first + STRIDE - 1))
  end
  replies[#replies + 1] = became
  replies[#replies + 1] = id
end
flush()
return replies
