-- Turns intake entries into jobs, or into dead letters.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV     9 values for each entry, in order:
--   ARGV[n]    verdict: accept or reject
--   ARGV[n+1]  entry id
--   ARGV[n+2]  job id, '' if the entry's id is the job id
--   ARGV[n+3]  payload
--   ARGV[n+4]  spec without its first word, the time of submission
--   ARGV[n+5]  delay (ms), 0 for none
--   ARGV[n+6]  start time (ms since 1970), 0 for none
--   ARGV[n+7]  time to live (ms), 0 for none
--   ARGV[n+8]  for reject: error code and message, separated by a space; else ''
-- Result   for each entry: 'admitted', 'rejected', 'cancelled', 'duplicate' or 'gone', and the
--          job's id
--
-- The caller that acknowledges an entry admits it. A job is admitted once by its id, for as long as
-- its record lasts. A job that was rejected because its tenant had no room for it, or because
-- another job held its unique key, may be submitted again.

local STRIDE = 9 -- values of one entry
local jobs = P .. 'jobs'

-- Returns the entry's own time, which keeps jobs in the order of submission regardless of the
-- worker that admits them. It is never in the future, because a producer may have made up its
-- stream id.
local function submission_time(entry)
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if ms > NOW then return NOW, 0 end
  return ms, math.min(seq, 999)
end

-- Returns the score as score_at() does, with a fraction for jobs of the same millisecond. The last
-- score is kept, because most of these jobs come in a row.
local last_ms, last_priority, last_score
local function score_of(ms, fraction, job)
  if ms ~= last_ms or job.priority ~= last_priority then
    last_ms, last_priority, last_score =
      ms, job.priority, string.format('%.0f', ms - CREDIT_MS * tonumber(job.priority))
  end
  return string.format('%s.%03d', last_score, fraction)
end

-- Maximum number of results of rejected entries that one reply stream gets in an hour. Submitters
-- can know each other's stream names, and more of these results would push other results out.
local REJECTED_REPLIES = 1000
local REJECTED_REPLIES_LIFE_MS = 3600000

-- Returns whether a rejected entry may still write its result to this reply stream.
local function may_reply(reply)
  local rejected = P .. 'refused:' .. reply
  local times = call('INCR', rejected)
  if times == 1 then call('PEXPIRE', rejected, REJECTED_REPLIES_LIFE_MS) end
  return times <= REJECTED_REPLIES
end

-- Rejects a job. `without_dead_letter` is for a job that has no fault itself.
local function reject(id, job, code, message, without_dead_letter)
  if job.reply and not without_dead_letter and not may_reply(job.reply) then
    job.reply = nil
    count('replies_withheld')
  end
  call('HSET', P .. 'job:' .. id, 'spec', job.spec)
  local result = queue_result(id, job, 'rejected', code, message)
  if without_dead_letter then
    end_job(id, job, 'finished', 'rejected', result, message)
  else
    end_job(id, job, 'dead', 'rejected', result, message)
    write_dead_letter(id, job, code, message, ':refused')
  end
  return 'rejected'
end

-- Deletes the record and the result of a job that was rejected before, so that it can be admitted.
-- Returns whether it did.
local function remove_rejected(id)
  local record = P .. 'job:' .. id
  local known = call('HMGET', record, 'state', 'ended', 'attempts')
  if known[1] ~= 'finished' or known[3] or not string.find(known[2] or '', '^rejected ') then
    return false
  end
  call('DEL', record, P .. 'result:' .. id)
  return true
end

-- Returns the reason why a job may not bring its class into use; nil or false if it may, or if the
-- class is in use. The reason is looked up once in a call for each class and tenant. `bringers`
-- holds the tenant that brought each class, and `brought` the number of classes of each tenant.
local in_use, class_errors = {}, {}
local function class_limit_error(class, tenant)
  if in_use[class] then return nil end
  local key = class .. ' ' .. tenant
  if class_errors[key] ~= nil then return class_errors[key] end
  local classes, why = P .. 'classes', false
  if call('SISMEMBER', classes, class) == 0 then
    if call('SCARD', classes) >= CLASS_LIMIT then
      why =
        string.format('class "%s" cannot be added: the limit is %d classes', class, CLASS_LIMIT)
    elseif (tonumber(call('HGET', P .. 'brought', tenant)) or 0) >= CLASS_LIMIT_PER_TENANT then
      why = string.format('class "%s" cannot be added: the limit is %d classes for tenant "%s"',
        class, CLASS_LIMIT_PER_TENANT, tenant)
    else
      call('HSET', P .. 'bringers', class, tenant)
      call('HINCRBY', P .. 'brought', tenant, 1)
    end
  end
  if not why then
    issue_tickets(class, 0)
    in_use[class] = true
  end
  class_errors[key] = why
  return why
end

-- Longest time by which a job becomes ready after its start time, while there is maintenance.
local LATE_MS = 10000

-- Number of further jobs of each tenant that may wait. It is computed once in a call and then
-- counted down. For a tenant with a limit, `later:<tenant>` holds the jobs that were submitted with
-- a delay, until they are ready.
local backlog_room = {}
local function has_backlog_room(tenant)
  local left = backlog_room[tenant]
  if left == nil then
    local max_queued = tonumber(call('HGET', P .. 'tenant:' .. tenant, 'max_queued'))
    left = max_queued or math.huge
    if max_queued then
      local later = P .. 'later:' .. tenant
      call('ZREMRANGEBYSCORE', later, '-inf', NOW - LATE_MS)
      left = left - call('ZCARD', later)
      for _, class in ipairs(call('SMEMBERS', P .. 'classes')) do
        left = left - call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
      end
    end
  end
  backlog_room[tenant] = left - 1
  return left > 0
end

-- Delays a job until its start time. ScriptCall has_backlog_room() for the tenant before.
local function delay_until(id, tenant, run_at)
  call('ZADD', P .. 'delayed', run_at, id)
  if backlog_room[tenant] == math.huge then return end
  local later = P .. 'later:' .. tenant
  call('ZADD', later, run_at, id)
  call('PEXPIREAT', later, run_at + LATE_MS, 'NX')
  call('PEXPIREAT', later, run_at + LATE_MS, 'GT')
end

-- A job id or unique key that begins with "cron:" belongs to a schedule. schedule_fire.lua records
-- each entry that it writes in the hash `firings`, which a client that may only XADD to the intake
-- cannot write. `firings` and `fired` hold the entries of this call that are recorded there, as a
-- list and as a set. `reserved_ids` holds the ids that other entries tried to take; the result of
-- such an entry is stored under its stream id, so that the schedule's job keeps its id.
local firings, fired, reserved_ids = {}, {}, {}

-- True if the cancel of one of these jobs was requested before the job was admitted.
local any_early_cancel

-- Admits or rejects one entry. Returns its answer. The parameters after `id` are the last six
-- values of the entry.
local function admit(verdict, entry, id, payload, rest, delay, at, ttl, why)
  local ms, fraction = submission_time(entry)
  local spec = string.format('%.0f %s', ms, rest)
  local job = job_from_spec(spec, {})
  local record = P .. 'job:' .. id
  if verdict == 'reject' then
    return reject(id, job, string.match(why, '^(%S*) (.*)$'))
  end
  local reserved_name = reserved_ids[entry]
    or (job.unique and is_reserved(job.unique) and not fired[entry] and job.unique)
  if reserved_name then
    job.unique = false
    local message =
      string.format('"%s" begins with "%s", which only schedules may use', reserved_name, RESERVED)
    return reject(id, job, 'bad_id', message)
  end
  local class_error = class_limit_error(job.class, job.tenant)
  if class_error then return reject(id, job, 'too_many_classes', class_error) end
  -- Checked before the unique key is taken: a cancelled job never holds it.
  local cancel = any_early_cancel and call('DEL', P .. 'cancelled:' .. id) == 1
  if not cancel and not has_backlog_room(job.tenant) then
    count('refused_backlog')
    job.unique = false
    local message = string.format('tenant "%s" has reached its limit of waiting jobs', job.tenant)
    return reject(id, job, 'backlog_full', message, true)
  end
  if job.unique and not cancel then
    local key_holder = take_unique(job.unique, id, tonumber(job.unique_ttl))
    if key_holder then
      local message = string.format('job "%s" holds the unique key "%s"', key_holder, job.unique)
      job.unique = false
      count('refused_unique')
      return reject(id, job, 'duplicate', message, true)
    end
  end
  count('admitted')
  add_event('admitted', id, job)

  -- A cancel that was processed before its job left a note.
  if cancel then
    call('HSET', record, 'spec', spec)
    end_cancelled(id, job)
    return 'cancelled'
  end

  local run_at = tonumber(at)
  if run_at == 0 then run_at = ms + tonumber(delay) end
  if run_at > NOW then
    call('HSET', record, 'spec', spec, 'state', 'delayed', 'payload', payload, 'run_at', run_at)
    delay_until(id, job.tenant, run_at)
  else
    call('HSET', record, 'spec', spec, 'state', 'queued', 'payload', payload)
    add_ready(id, job, score_of(ms, fraction, job))
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
  local entry, name = ARGV[i], ARGV[i + 1]
  entries[n] = entry
  if is_reserved(name) then
    if call('HGET', P .. 'firings', entry) == name then
      firings[#firings + 1] = entry
      fired[entry] = true
    else
      reserved_ids[entry] = name
      name = ''
    end
  end
  ids[n] = name == '' and entry or name
  records[n] = P .. 'job:' .. ids[n]
  notes[n] = P .. 'cancelled:' .. ids[n]
end
-- If some entries were not pending, each is deleted by itself; the caller whose XDEL deletes it
-- admits it.
local all_pending = remove_entries(jobs, ADMIT_GROUP, entries)
if #firings > 0 then call('HDEL', P .. 'firings', unpack(firings)) end

-- Usually none of them exists.
any_early_cancel = call('EXISTS', unpack(notes)) > 0
local any_known = call('EXISTS', unpack(records)) > 0
local admitted_ids = {}

local replies = {}
for i, entry in ipairs(entries) do
  local first = (i - 1) * STRIDE + 1
  local id = ids[i]
  local answer
  if not all_pending and call('XDEL', jobs, entry) == 0 then
    answer = 'gone'
  elseif admitted_ids[id]
    or (any_known and call('EXISTS', records[i]) == 1 and not remove_rejected(id)) then
    answer = 'duplicate'
    count('duplicates')
  else
    admitted_ids[id] = true
    local verdict = ARGV[first]
    answer = admit(verdict, entry, id, unpack(ARGV, first + 3, first + STRIDE - 1))
  end
  replies[#replies + 1] = answer
  replies[#replies + 1] = id
end
flush()
return replies
