-- Queues dead letters again, each with all its attempts.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV     for each letter:
--   ARGV[n]    job id
--   ARGV[n+1]  id of the letter that the job must still have, '' for any
-- Result   for each: 'requeued', 'not_dead', 'no_payload' (it was rejected at the intake or
--          dropped, so there is nothing to run), 'key_held' (another job now holds its unique key)
--          or 'unknown'
--
-- The old result and log are deleted in the same step, so that a job has at most one result and a
-- client that waits from now on gets the new one. A repeated call finds the job alive and changes
-- nothing.

local replies = {}
for i = 1, #ARGV, 2 do
  local id, letter = ARGV[i], ARGV[i + 1]
  local record = P .. 'job:' .. id
  local job = load_job(id)
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
    add_event('requeued', id, job)
  end
  replies[#replies + 1] = answer
end
flush()
return replies
