-- Appends to a running job's log, if the lease is still held.
--
-- ARGV     worker, class, token, job id, then for each chunk: stream (stdout or stderr), bytes
-- Replies  1 when held, 0 when not

local worker, class, token, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local job = load(id)
local entry = lease_of(class, token)
if not held(id, job, token, worker, entry) then
  return 0
end
if not job.log then
  redis.pcall('HSET', P .. 'job:' .. id, 'log', '1')
  redis.pcall('HSET', P .. 'bound:' .. class, token, lease_entry(id, worker, job.attempts, '1', job.spec))
end
append(id, job, 5, #ARGV)
call('PEXPIRE', P .. 'log:' .. id, math.max(tonumber(job.keep), LOG_LIFE_MS))
return 1
