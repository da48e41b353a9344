-- Queues dead letters again, each with a fresh budget.
--
-- ARGV     for each: job id, and the letter it must still be ('' for whichever it is)
-- Replies  for each: 'requeued', 'not_dead', 'no_payload' (refused at the intake, or dropped: there is nothing to
--          run), 'key_held' (another job holds its unique key by now) or 'unknown'
--
-- The old result and log go in the same step, so that a job has one result at most and whoever waits from now on
-- gets the new one. Repeating the call finds the job alive and changes nothing.

local replies = {}
for i = 1, #ARGV, 2 do
  local id, letter = ARGV[i], ARGV[i + 1]
  local record = P .. 'job:' .. id
  local job = load(id)
  local named = call('HGET', record, 'letter')
  local answer = 'requeued'
  if not job then
    answer = 'unknown'
  elseif job.state ~= 'dead' or (letter ~= '' and letter ~= named) then
    answer = 'not_dead'
  elseif call('HEXISTS', record, 'payload') == 0 then
    answer = 'no_payload'
  elseif job.unique and take_unique(job.unique, id, tonumber(job.unique_ttl)) then
    answer = 'key_held'
  else
    call('XDEL', P .. 'dead', named)
    call('DEL', P .. 'result:' .. id, P .. 'log:' .. id)
    call('HDEL', record, 'letter', 'ended', 'error', 'expires_at', 'run', 'attempts', 'lost', 'log')
    call('PERSIST', record)
    make_ready(id, job, score_at(NOW, job))
    count('requeued')
    event('requeued', id, job)
  end
  replies[#replies + 1] = answer
end
flush()
return replies
