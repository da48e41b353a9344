-- Finds the schedules that are due. Writes nothing but to drop names without a record.
--
-- ARGV     most
-- Replies  the time (ms), then for each schedule: name, revision, when it was due (ms), cron, zone, missed

local schedules = P .. 'schedules'
local reply = { NOW }
for _, name in ipairs(call('ZRANGE', schedules, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[1]))) do
  local facts = call('HMGET', P .. 'schedule:' .. name, 'revision', 'next', 'cron', 'zone', 'missed')
  if facts[1] and facts[2] then
    reply[#reply + 1] = name
    for i = 1, #facts do reply[#reply + 1] = facts[i] or '' end
  else
    call('ZREM', schedules, name)
  end
end
return reply
