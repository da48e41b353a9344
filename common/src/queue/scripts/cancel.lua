-- Cancels a job: ends it when it waits, asks its worker when it runs.
--
-- ARGV     job id, how long to remember an id that is not known yet (ms)
-- Replies  'cancelled', 'asked', 'ended' or 'unknown'
--
-- A running job is told three ways, because any one may be missed: a flag in its record, a line in the control
-- stream, and the next heartbeat's answer, which reads the flag.

local id, remember = ARGV[1], ARGV[2]
local job = load(id)
allow_when_full()
if not job then
  -- Another admitter may hold the job's own entry right now.
  -- A firing that does not exist yet can be named by anybody: its id is made of a time.
  if not is_reserved(id) then call('SET', P .. 'cancelled:' .. id, '1', 'PX', remember) end
  return 'unknown'
end
if job.state == 'queued' then
  unready(id, job)
  cancelled(id, job)
  flush()
  return 'cancelled'
elseif job.state == 'delayed' then
  undelay(id, job)
  cancelled(id, job)
  flush()
  return 'cancelled'
elseif job.state == 'running' then
  if not job.cancel then
    call('HSET', P .. 'job:' .. id, 'cancel', '1')
    event('cancel_requested', id, job)
  end
  call('XADD', P .. 'control', 'MAXLEN', '~', CONTROL_KEPT, '*', 'op', 'cancel', 'id', id)
  flush()
  return 'asked'
end
return 'ended'
