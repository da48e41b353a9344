-- What a tenant may do, and what it has. Writes nothing.
--
-- ARGV     tenant
-- Replies  weight, max_running, rate_per_s, burst, max_queued, paused (each false when not set), running, ready

local tenant = ARGV[1]
local reply =
  call('HMGET', P .. 'tenant:' .. tenant, 'weight', 'max_running', 'rate_per_s', 'burst', 'max_queued', 'paused')
local ready = 0
for _, class in ipairs(call('SMEMBERS', P .. 'classes')) do
  ready = ready + call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
end
reply[7] = call('SCARD', P .. 'running:' .. tenant)
reply[8] = ready
return reply
