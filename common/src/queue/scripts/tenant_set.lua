-- Sets what a tenant may do.
--
-- ARGV     tenant, then fields of `tenant:<t>` and values, '' for a limit that is lifted
-- Replies  1
--
-- What this allows to start has its tickets by the next round of upkeep. A rate or a burst that changes begins anew, as
-- after a rest: the time that the old one reckoned for the next start says nothing under the new one.

local tenant = ARGV[1]
local settings = P .. 'tenant:' .. tenant
local function pace()
  local rate = call('HMGET', settings, 'rate_per_s', 'burst')
  return (rate[1] or '') .. ' ' .. (rate[2] or '')
end

local before = pace()
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    call('HDEL', settings, ARGV[i])
  else
    call('HSET', settings, ARGV[i], ARGV[i + 1])
  end
end
if pace() ~= before then call('DEL', P .. 'rate:' .. tenant) end
call(call('EXISTS', settings) == 1 and 'SADD' or 'SREM', P .. 'tenants', tenant)
return 1
