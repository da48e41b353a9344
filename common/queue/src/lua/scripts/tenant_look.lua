-- Reads a tenant's settings and usage. Writes nothing.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  tenant
-- Result   weight, max_running, rate_per_s, burst, max_queued, paused, max_retained (each false if
--          not set), running jobs, ready jobs, bytes of its large results that are kept

local tenant = ARGV[1]
local reply =
  call('HMGET', P .. 'tenant:' .. tenant, 'weight', 'max_running', 'rate_per_s', 'burst',
    'max_queued', 'paused', 'max_retained')
local ready = 0
for _, class in ipairs(call('SMEMBERS', P .. 'classes')) do
  ready = ready + call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
end
reply[8] = call('SCARD', P .. 'running:' .. tenant)
reply[9] = ready
reply[10] = 0
for _, member in ipairs(call('ZRANGE', P .. 'kept:' .. tenant, NOW, '+inf', 'BYSCORE')) do
  reply[10] = reply[10] + string.match(member, '^%d+')
end
return reply
