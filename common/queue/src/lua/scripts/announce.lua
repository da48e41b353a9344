-- Writes a worker's report on itself.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker
-- ARGV[2]  time to live of the report (ms)
-- ARGV[3]  first field of the report, followed by its value; further fields and values in turn
-- Result   1

local worker, ttl = ARGV[1], ARGV[2]
local record = P .. 'worker:' .. worker
call('DEL', record)
call('HSET', record, 'seen_at', NOW, unpack(ARGV, 3))
call('PEXPIRE', record, ttl)
call('ZADD', P .. 'workers', NOW, worker)
return 1
