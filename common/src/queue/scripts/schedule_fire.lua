-- Submits a schedule's job.
--
-- ARGV     name, job id, then
--          when it is due:      revision, the time it is due at (ms), the next one ('' for none), firings left out
--          when somebody asks:  (nothing)
-- Replies  'fired', 'stale' (another worker was first, or the schedule has changed) or 'unknown'
--
-- Whoever still finds the time it saw as the next one moves it on, in the same step: so two schedulers fire once.

local name, id = ARGV[1], ARGV[2]
local revision, due, next_due, left_out = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local record, schedules = P .. 'schedule:' .. name, P .. 'schedules'

local facts = call('HMGET', record, 'revision', 'next', 'payload', 'routing')
if not facts[1] then return 'unknown' end
if due and (facts[1] ~= revision or facts[2] ~= due) then return 'stale' end

local entry = call('XADD', P .. 'jobs', '*', 'job', facts[3], 'id', id, unpack(cjson.decode(facts[4])))
-- This note is the proof, for admit.lua, that the entry is a schedule's own.
call('HSET', P .. 'firings', entry, id)
call('HSET', record, 'last', NOW, 'last_id', id)
call('HINCRBY', record, 'fired', 1)
count('scheduled')
if due then
  if tonumber(left_out) > 0 then call('HINCRBY', record, 'left_out', left_out) end
  if next_due == '' then
    call('HSET', record, 'state', 'over')
    call('HDEL', record, 'next')
    call('ZADD', schedules, '+inf', name)
  else
    call('HSET', record, 'next', next_due)
    call('ZADD', schedules, next_due, name)
  end
end
flush()
return 'fired'
