-- Appends to a running job's log, if the lease is still held.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker
-- ARGV[2]  class
-- ARGV[3]  token
-- ARGV[4]  job id
-- then for each chunk:
--   ARGV[n]    stream: stdout or stderr
--   ARGV[n+1]  bytes
-- Result   1 if the lease is held, else 0

local worker, class, token, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local job = load_job(id)
local entry = read_lease(class, token)
if not is_held(id, job, token, worker, entry) then
  return 0
end
if not job.log then
  redis.pcall('HSET', P .. 'job:' .. id, 'log', '1')
  redis.pcall('HSET', P .. 'bound:' .. class, token,
    lease_entry(id, worker, job.attempts, '1', job.spec))
end
append_output(id, job, 5, #ARGV)
call('PEXPIRE', P .. 'log:' .. id, math.max(tonumber(job.keep), LOG_LIFE_MS))
return 1
