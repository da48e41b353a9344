-- Removes, pauses, resumes or postpones a schedule.
--
-- ARGV     op, name, then
--          remove, pause:  (nothing)
--          resume:         revision, next (ms)
--          postpone:       revision, until (ms from now): a worker that cannot read it leaves it to others for a while
-- Replies  'done', 'stale' (it has changed) or 'unknown'

local op, name, revision = ARGV[1], ARGV[2], ARGV[3]
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
    call('HSET', record, 'state', 'active', 'next', ARGV[4])
    call('ZADD', schedules, ARGV[4], name)
  end
elseif op == 'postpone' then
  if call('HEXISTS', record, 'next') == 1 then call('ZADD', schedules, NOW + tonumber(ARGV[4]), name) end
end
return 'done'
