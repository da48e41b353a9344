-- Counts what waits and what runs. Writes nothing.
--
-- ARGV     classes
-- Replies  intake, delayed, dead, workers, 1 when the queue is paused, then for each class: ready, running, how long
--          the job that goes next of some tenant has been ready (ms), the longest of them, or false, and how many
--          tickets are owed

local reply = {
  call('XLEN', P .. 'jobs'), call('ZCARD', P .. 'delayed'), call('XLEN', P .. 'dead'), call('ZCARD', P .. 'workers'),
  call('HEXISTS', P .. 'gate', 'paused'),
}
for _, class in ipairs(ARGV) do
  local ready, oldest = 0, nil
  for _, tenant in ipairs(call('ZRANGE', P .. 'fair:' .. class, 0, -1)) do
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
end
return reply
