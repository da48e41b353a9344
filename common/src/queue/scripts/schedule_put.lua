-- Writes a schedule.
--
-- ARGV     name, whether to replace one of that name (0 or 1), revision, next (ms), payload, routing (JSON: names and
--          values in turn), cron, zone, missed, overlap
-- Replies  'added', 'replaced', 'exists' or 'too_many'
--
-- The revision is the writer's own and new with each write: a repeated call finds it and changes nothing.

local SCHEDULES_MOST = 10000
local name, replace, revision, next_due = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local record, schedules = P .. 'schedule:' .. name, P .. 'schedules'

local before = call('HGET', record, 'revision')
if before == revision then return call('HGET', record, 'written') end
if before and replace == '0' then return 'exists' end
if not before and call('ZCARD', schedules) >= SCHEDULES_MOST then return 'too_many' end

local written = before and 'replaced' or 'added'
call('HSET', record, 'revision', revision, 'written', written, 'state', 'active', 'next', next_due,
  'payload', ARGV[5], 'routing', ARGV[6], 'cron', ARGV[7], 'zone', ARGV[8], 'missed', ARGV[9], 'overlap', ARGV[10])
call('HSETNX', record, 'created_at', NOW)
call('ZADD', schedules, next_due, name)
return written
