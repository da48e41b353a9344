-- Settles a lease, if it is still held.
--
-- ARGV     worker, class, token, job id, settlement, then
--          publish:  result, outcome
--          retry:    after_ms, why, budget (attempt or lost)
--          dead:     result, outcome, reason, error
--          return:   (nothing: the job goes back to the front, its attempt not counted)
-- Replies  'settled' or 'stale'
--
-- The lease ends first, then the rest: a crash between could not happen, but a full Redis could refuse.

local worker, class, token, id, settlement = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local mark = token .. ' ' .. worker
local record = P .. 'job:' .. id
local job = load(id)

if not held(id, job, class, token, worker) then
  if job and job.settled == mark then return 'settled' end
  allow_when_full()
  count('stale')
  return 'stale'
end

destroy(class, token)
call('HDEL', P .. 'bound:' .. class, token)
call('HSET', record, 'settled', mark)

if settlement == 'publish' then
  close(id, job, 'finished', ARGV[7], ARGV[6])
elseif settlement == 'dead' then
  close(id, job, 'dead', ARGV[7], ARGV[6], 'error', ARGV[9])
  dead_letter(id, job, ARGV[8], ARGV[9])
elseif job.cancel then
  cancelled(id, job)
elseif settlement == 'return' then
  call('HINCRBY', record, 'attempts', -1)
  make_ready(id, job, job.score)
  count('given_back')
  event('given_back', id, job, 'worker', worker)
elseif settlement == 'retry' then
  local after = tonumber(ARGV[6])
  call('HSET', record, 'error', ARGV[7])
  if ARGV[8] == 'lost' then
    call('HINCRBY', record, 'lost', 1)
    count('lost')
  end
  if after > 0 then
    call('HSET', record, 'state', 'delayed', 'run_at', NOW + after)
    call('ZADD', P .. 'delayed', NOW + after, id)
  else
    make_ready(id, job, score_at(NOW, job))
  end
  count('retried')
  event('retried', id, job, 'worker', worker, 'attempt', job.attempts, 'after_ms', after)
end
return 'settled'
