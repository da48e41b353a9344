-- Counts what waits and what runs. Writes nothing.
--
-- ARGV     classes
-- Replies  intake, delayed, dead, workers, then for each class: ready, running

local reply = {
  call('XLEN', P .. 'jobs'), call('ZCARD', P .. 'delayed'), call('XLEN', P .. 'dead'), call('ZCARD', P .. 'workers'),
}
for _, class in ipairs(ARGV) do
  local ready = 0
  for _, tenant in ipairs(call('ZRANGE', P .. 'fair:' .. class, 0, -1)) do
    ready = ready + call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
  end
  reply[#reply + 1] = ready
  reply[#reply + 1] = call('HLEN', P .. 'bound:' .. class)
end
return reply
