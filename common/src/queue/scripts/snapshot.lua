-- Counts what waits and what runs. Writes nothing.
--
-- ARGV     for each class: its name, and how many of its tenants to pass over
-- Replies  intake, delayed, dead, workers, 1 when the queue is paused, then for each class: ready, running, how long
--          the job that goes next of some tenant has been ready (ms), the longest of them, or false, how many tickets
--          are owed, and how many tenants to pass over in the next call, or false when all have been looked at
--
-- One call looks at so many tenants that it does not hold Redis up.

local left = 1000
local reply = {
  call('XLEN', P .. 'jobs'), call('ZCARD', P .. 'delayed'), call('XLEN', P .. 'dead'), call('ZCARD', P .. 'workers'),
  call('HEXISTS', P .. 'gate', 'paused'),
}
for i = 1, #ARGV, 2 do
  local class, passed = ARGV[i], tonumber(ARGV[i + 1])
  local fair = P .. 'fair:' .. class
  local ready, oldest = 0, nil
  local tenants = left > 0 and call('ZRANGE', fair, passed, passed + left - 1) or {}
  left = left - #tenants
  passed = passed + #tenants
  for _, tenant in ipairs(tenants) do
    local set = P .. 'ready:' .. class .. ':' .. tenant
    ready = ready + call('ZCARD', set)
    local first = call('ZRANGE', set, 0, 0)[1]
    local times = first and call('HMGET', P .. 'job:' .. first, 'ready_at', 'spec')
    local since = times and times[2] and tonumber(times[1] or string.match(times[2], '^%d+'))
    if since then oldest = math.max(oldest or 0, NOW - since) end
  end
  reply[#reply + 1] = ready
  reply[#reply + 1] = call('HLEN', P .. 'bound:' .. class)
  reply[#reply + 1] = oldest or false
  reply[#reply + 1] = owed(class)
  reply[#reply + 1] = left == 0 and call('ZCARD', fair) > passed and passed
end
return reply
