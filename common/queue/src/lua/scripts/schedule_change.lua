-- Removes, pauses, resumes or postpones a schedule.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  remove, pause, resume or postpone
-- ARGV[2]  name
-- ARGV[3]  for resume and postpone: revision
-- ARGV[4]  for resume: next time at which it is due (ms); for postpone: delay from now (ms)
-- Result   'done', 'stale' (the schedule has changed) or 'unknown'
--
-- A worker postpones a schedule that it cannot decode, so that other workers can try it.

local op, name, revision, time = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local record, schedules = P .. 'schedule:' .. name, P .. 'schedules'

local known = call('HGET', record, 'revision')
if not known then return 'unknown' end
if op == 'remove' then
  call('ZREM', schedules, name)
  call('DEL', record)
elseif op == 'pause' then
  call('HDEL', record, 'next')
  call('HSET', record, 'state', 'paused')
  call('ZADD', schedules, '+inf', name)
elseif known ~= revision then
  return 'stale'
elseif op == 'resume' then
  if call('HGET', record, 'state') ~= 'active' then
    call('HSET', record, 'state', 'active', 'next', time)
    call('ZADD', schedules, time, name)
  end
elseif op == 'postpone' then
  if call('HEXISTS', record, 'next') == 1 then
    call('ZADD', schedules, NOW + tonumber(time), name)
  end
end
return 'done'
