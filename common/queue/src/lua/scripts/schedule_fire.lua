-- Submits a schedule's job.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  name
-- ARGV[2]  job id
-- ARGV[3]  revision; this and the following only if the schedule is due, not if a user requests the
--          run
-- ARGV[4]  time at which it is due (ms)
-- ARGV[5]  next time at which it is due (ms), '' for none
-- ARGV[6]  number of missed firings that this one replaces
-- Result   'fired', 'stale' (another worker was first, or the schedule has changed) or 'unknown'
--
-- The script advances the schedule in the same step, and only if its next time is still the one
-- that the caller has read. So two schedulers fire it once.

local name, id = ARGV[1], ARGV[2]
local revision, due, next_due, left_out = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local record, schedules = P .. 'schedule:' .. name, P .. 'schedules'

local facts = call('HMGET', record, 'revision', 'next', 'payload', 'routing')
if not facts[1] then return 'unknown' end
if due and (facts[1] ~= revision or facts[2] ~= due) then return 'stale' end

local entry = call('XADD', P .. 'jobs', '*', 'job', facts[3], 'id', id,
  unpack(cjson.decode(facts[4])))
-- This note proves to admit.lua that the entry is a schedule's own.
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
