-- Library: leases. The pending entry of a bound ticket is the lease, and its id is the fencing
-- token.
--
-- This file is put after tickets.lua, before every script that uses the library. It takes no
-- arguments.

-- Builds the value of a token in the table of leases of a class, `bound:<class>`: the job's id, the
-- worker, the attempt, 1 if the job has a log or else -, and the job's spec. With it, most
-- settlements need not read the job's record.
local function lease_entry(id, worker, attempt, log, spec)
  return id .. ' ' .. worker .. ' ' .. attempt .. ' ' .. (log or '-') .. ' ' .. spec
end

-- Returns a token's value in the table of leases; false if the token is no lease.
local function read_lease(class, token)
  return call('HGET', P .. 'bound:' .. class, token)
end

-- Returns the id of the job that an entry of the table is for.
local function leased_id(entry)
  return entry and string.match(entry, '^%S+')
end

-- Returns the running job of an entry, as load_job() does but without the fields that only the
-- record has; nil if the entry is not this worker's lease on this job.
local function leased_job(entry, id, token, worker)
  local leased, holder, attempt, log, spec =
    string.match(entry or '', '^(%S+) (%S+) (%S+) (%S+) (.*)$')
  if leased ~= id or holder ~= worker then return nil end
  return job_from_spec(spec, {
    [2] = 'running', [3] = attempt, [8] = log == '1' and log, token = token, worker = worker,
  })
end

-- Returns whether this worker holds a lease on this job with this token. `entry` is the value of
-- the token in the table of leases of the class.
local function is_held(id, job, token, worker, entry)
  return job and job.state == 'running' and job.token == token and job.worker == worker
    and leased_id(entry) == id
end
