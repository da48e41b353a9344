-- Library: reads the records of jobs.
--
-- This file begins the part of the library that is put after constants.lua and before every script
-- that uses it: job, tickets, lease, fairness, ready_set, writes (see script.rs). It takes no
-- arguments. The fields of the job record are described in record.rs.

-- The unchanging part of a job is one field of its record, `spec`, because a record is read more
-- often than it is written and every field costs. The words of the field are separated by one
-- space. The scripts use these nine words; the words after them are for the worker only.
local SPEC = '^(%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) '

-- Prefix of the job ids and unique keys that only schedules may use.
local RESERVED = 'cron:'
local function is_reserved(name)
  return string.sub(name, 1, #RESERVED) == RESERVED
end

-- Returns the text; false if it is empty.
local function non_empty(text)
  return text ~= '' and text
end

-- Builds a job from its spec. `more` holds the other fields of its record, with the indices that
-- load_job() uses, and the facts of its attempt. One constructor sets all fields, so that Lua
-- allocates the table once.
local function job_from_spec(spec, more)
  local submitted_at, class, tenant, priority, enc, keep, reply, unique, unique_ttl =
    string.match(spec, SPEC)
  return {
    spec = spec, submitted_at = submitted_at, class = class, tenant = tenant, priority = priority,
    enc = enc, keep = keep, reply = non_empty(reply), unique = non_empty(unique),
    unique_ttl = unique_ttl,
    state = more[2], attempts = more[3] or '0', lost = more[4] or '0', cancel = more[6],
    expires_at = more[7], log = more[8], token = more.token, worker = more.worker,
    started_at = more.started_at, score = more.score,
  }
end

-- Returns the job's record without its payload, or nil. The field `run` describes the running or
-- last attempt: its token, worker and start time, and the job's score in the ready set, so that the
-- job can go back to its place.
local function load_job(id)
  local values = call('HMGET', P .. 'job:' .. id, 'spec', 'state', 'attempts', 'lost', 'run',
    'cancel', 'expires_at', 'log')
  if not values[1] then return nil end
  if values[5] then
    values.token, values.worker, values.started_at, values.score =
      string.match(values[5], '^(%S+) (%S+) (%S+) (%S+)$')
  end
  return job_from_spec(values[1], values)
end
