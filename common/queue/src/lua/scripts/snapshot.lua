-- Counts waiting and running jobs. Writes nothing.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV     for each class:
--   ARGV[n]    class
--   ARGV[n+1]  number of its tenants that earlier calls have counted
-- Result   intake entries, delayed jobs, dead letters, workers, 1 if the queue is paused (else 0);
--          then for each class: ready jobs, running jobs, longest time for which the next job of a
-- tenant has been ready (ms) or false, withheld tickets, and the number of tenants counted so
--          far or false if all are counted
--
-- One call counts a limited number of tenants, so that it does not block Redis for long.

local tenants_left = 1000
local reply = {
  call('XLEN', P .. 'jobs'), call('ZCARD', P .. 'delayed'), call('XLEN', P .. 'dead'),
  call('ZCARD', P .. 'workers'),
  call('HEXISTS', P .. 'gate', 'paused'),
}
for i = 1, #ARGV, 2 do
  local class, passed = ARGV[i], tonumber(ARGV[i + 1])
  local fair = P .. 'fair:' .. class
  local ready, oldest = 0, nil
  local tenants = tenants_left > 0 and call('ZRANGE', fair, passed, passed + tenants_left - 1) or {}
  tenants_left = tenants_left - #tenants
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
  reply[#reply + 1] = withheld_tickets(class)
  reply[#reply + 1] = tenants_left == 0 and call('ZCARD', fair) > passed and passed
end
return reply
