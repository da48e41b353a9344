-- Writes what a worker says of itself.
--
-- ARGV     worker, ttl_ms, then fields and values
-- Replies  1

local worker, ttl = ARGV[1], ARGV[2]
local record = P .. 'worker:' .. worker
call('DEL', record)
call('HSET', record, 'seen_at', NOW, unpack(ARGV, 3))
call('PEXPIRE', record, ttl)
call('ZADD', P .. 'workers', NOW, worker)
return 1
