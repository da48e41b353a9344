-- Lists running jobs. Writes nothing.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  maximum number of jobs of each class
-- ARGV[2]  first class; further classes follow
-- Result   the time (ms), then for each job: id, class, tenant, worker, attempts, start time of the
--          attempt (ms)
--
-- Of each class it lists the jobs with the oldest tickets, which are usually the jobs that have run
-- longest.

local limit = tonumber(ARGV[1])
local reply = { NOW }
for i = 2, #ARGV do
  local class = ARGV[i]
  local bound = call('HGETALL', P .. 'bound:' .. class)
  local found = {}
  for k = 1, #bound, 2 do
    found[#found + 1] = { tonumber(string.match(bound[k], '^(%d+)')) or 0, leased_id(bound[k + 1]) }
  end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  for k = 1, math.min(#found, limit) do
    local id = found[k][2]
    local job = load_job(id)
    if job and job.worker then
      for _, fact in ipairs({
        id, job.class, job.tenant, job.worker, job.attempts, job.started_at
      }) do
        reply[#reply + 1] = fact
      end
    end
  end
end
return reply
