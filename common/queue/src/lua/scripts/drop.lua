-- Drops dead letters: they are no longer listed and cannot be queued again.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV     for each letter:
--   ARGV[n]    job id
--   ARGV[n+1]  id of the letter, '' for the letter that the job's record names
-- Result   for each: 'dropped', or 'unknown' (there is no such letter)
--
-- The job's result keeps its retention: dropping concerns the operator, not the submitter of the
-- job.

local replies = {}
for i = 1, #ARGV, 2 do
  local id, letter = ARGV[i], ARGV[i + 1]
  local record = P .. 'job:' .. id
  local named = call('HGET', record, 'letter')
  if letter == '' then letter = named end
  local answer = 'unknown'
  if letter and call('XDEL', P .. 'dead', letter) == 1 then
    answer = 'dropped'
    count('dropped')
  end
  if letter and letter == named then call('HDEL', record, 'payload', 'letter') end
  replies[#replies + 1] = answer
end
flush()
return replies
