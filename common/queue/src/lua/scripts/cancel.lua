-- Cancels a job: ends it if it waits, and notifies its worker if it runs.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  job id
-- ARGV[2]  how long to memory_ms the cancel if the job is unknown (ms)
-- Result   'cancelled', 'asked' (it runs; its worker was notified), 'ended' or 'unknown'
--
-- The worker of a running job is notified in three ways, because each may be missed: a flag in the
-- job's record, an event in the control stream, and the answer to the next heartbeat, which reads
-- the flag.

local id, memory_ms = ARGV[1], ARGV[2]
local job = load_job(id)
allow_when_full()
if not job then
  -- Another admitter may be about to admit the job. For a job of a schedule nothing is remembered:
  -- its id is made of a time, so a client could name the job of a future firing.
  if not is_reserved(id) then call('SET', P .. 'cancelled:' .. id, '1', 'PX', memory_ms) end
  return 'unknown'
end
if job.state == 'queued' then
  remove_ready(id, job)
  end_cancelled(id, job)
  flush()
  return 'cancelled'
elseif job.state == 'delayed' then
  remove_delayed(id, job)
  end_cancelled(id, job)
  flush()
  return 'cancelled'
elseif job.state == 'running' then
  if not job.cancel then
    call('HSET', P .. 'job:' .. id, 'cancel', '1')
    add_event('cancel_requested', id, job)
  end
  call('XADD', P .. 'control', 'MAXLEN', '~', CONTROL_KEPT, '*', 'op', 'cancel', 'id', id)
  flush()
  return 'asked'
end
return 'ended'
