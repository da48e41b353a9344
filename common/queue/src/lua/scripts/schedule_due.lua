-- Finds the schedules that are due. Writes nothing, except that it removes names without a record.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  maximum number of schedules
-- Result   the time (ms), then for each schedule: name, revision, time at which it was due (ms),
--          cron expression, zone, policy for missed firings

local limit = tonumber(ARGV[1])
local schedules = P .. 'schedules'
local reply = { NOW }
for _, name in ipairs(call('ZRANGE', schedules, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, limit)) do
  local facts =
    call('HMGET', P .. 'schedule:' .. name, 'revision', 'next', 'cron', 'zone', 'missed')
  if facts[1] and facts[2] then
    reply[#reply + 1] = name
    for i = 1, #facts do reply[#reply + 1] = facts[i] or '' end
  else
    call('ZREM', schedules, name)
  end
end
return reply
