-- Renews a worker's leases.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker
-- then for each lease:
--   ARGV[n]    class
--   ARGV[n+1]  token
--   ARGV[n+2]  job id
-- Result   for each lease: 'held', 'cancel' (held, and a cancel was requested), 'settled' (by this
--          worker, in the meantime) or 'lost'
--
-- A lease that was taken over is reported and left unchanged: an unfenced renewal would steal the
-- job back.

local worker = ARGV[1]
local replies = {}
for i = 2, #ARGV, 3 do
  local class, token, id = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local job = load_job(id)
  local answer = 'lost'
  if is_held(id, job, token, worker, read_lease(class, token)) then
    -- FORCE restores a pending entry that was lost with its group; the stream entry must exist.
    local claimed = redis.pcall('XCLAIM', P .. 'tickets:' .. class, WORKER_GROUP, worker, 0, token,
      'FORCE', 'JUSTID')
    if not claimed.err and #claimed == 1 then
      answer = job.cancel and 'cancel' or 'held'
    end
  end
  if answer == 'lost' and job and job.state ~= 'running'
    and job.token == token and job.worker == worker then
    answer = 'settled'
  end
  replies[#replies + 1] = answer
end
return replies
