-- Writes a schedule.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  name
-- ARGV[2]  1 to replace a schedule of that name (else 0)
-- ARGV[3]  revision
-- ARGV[4]  next time at which it is due (ms)
-- ARGV[5]  payload
-- ARGV[6]  routing (JSON list: names and values in turn)
-- ARGV[7]  cron expression
-- ARGV[8]  zone
-- ARGV[9]  policy for missed firings
-- ARGV[10]  policy for overlap
-- Result   'added', 'replaced', 'exists' or 'too_many'
--
-- Each write has a new revision: a repeated call finds its own revision and changes nothing.

local name, replace, revision, next_due = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local payload, routing, cron, zone = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local missed, overlap = ARGV[9], ARGV[10]
local SCHEDULE_LIMIT = 10000
local record, schedules = P .. 'schedule:' .. name, P .. 'schedules'

local before = call('HGET', record, 'revision')
if before == revision then return call('HGET', record, 'written') end
if before and replace == '0' then return 'exists' end
if not before and call('ZCARD', schedules) >= SCHEDULE_LIMIT then return 'too_many' end

local written = before and 'replaced' or 'added'
call('HSET', record, 'revision', revision, 'written', written, 'state', 'active', 'next', next_due,
  'payload', payload, 'routing', routing, 'cron', cron, 'zone', zone, 'missed', missed,
  'overlap', overlap)
call('HSETNX', record, 'created_at', NOW)
call('ZADD', schedules, next_due, name)
return written
