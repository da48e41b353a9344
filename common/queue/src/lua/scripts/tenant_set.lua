-- Changes a tenant's settings.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  tenant
-- then for each setting:
--   ARGV[n]    field of the hash `tenant:<t>`
--   ARGV[n+1]  value, '' to remove the setting
-- Result   1
--
-- Jobs that may start because of the change get their tickets in the next round of maintenance. If
-- the rate or the burst changes, the rate limit starts anew, as after a time without starts: the
-- time that was computed for the next start under the old rate has no meaning under the new one.

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
