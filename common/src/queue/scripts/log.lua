-- Appends to a running job's log, if the lease is still held.
--
-- ARGV     worker, class, token, job id, stream (stdout or stderr), bytes
-- Replies  1 when held, 0 when not
--
-- A full Redis loses the chunk, not the lease: the result still carries the output.

local worker, class, token, id, stream, bytes = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local job = load(id)
if not held(id, job, token, worker, lease_of(class, token)) then
  return 0
end
local log = P .. 'log:' .. id
if not job.log then redis.pcall('HSET', P .. 'job:' .. id, 'log', '1') end
redis.pcall('XADD', log, 'MAXLEN', '~', LOG_ENTRIES_KEPT, '*',
  'stream', stream, 'attempt', job.attempts, 'data', bytes)
call('PEXPIRE', log, math.max(tonumber(job.keep), LOG_LIFE_MS))
return 1
