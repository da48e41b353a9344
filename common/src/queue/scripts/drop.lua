-- Drops dead letters: they are no longer listed and cannot be queued again.
--
-- ARGV     for each: job id, and the letter ('' for whichever the job's record names)
-- Replies  for each: 'dropped' or 'unknown' (there is no such letter)
--
-- The result stays as long as it would have: dropping is for the operator, not for who submitted the job.

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
