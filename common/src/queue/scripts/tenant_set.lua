-- Sets what a tenant may do.
--
-- ARGV     tenant, then fields of `tenant:<t>` and values, '' for a limit that is lifted
-- Replies  1
--
-- What this allows to start has its tickets by the next round of upkeep.

local tenant = ARGV[1]
local settings = P .. 'tenant:' .. tenant
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    call('HDEL', settings, ARGV[i])
    if ARGV[i] == 'rate_per_s' then call('DEL', P .. 'rate:' .. tenant) end
  else
    call('HSET', settings, ARGV[i], ARGV[i + 1])
  end
end
call(call('EXISTS', settings) == 1 and 'SADD' or 'SREM', P .. 'tenants', tenant)
return 1
