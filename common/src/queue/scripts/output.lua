-- Put between the prelude and the scripts that write what a job printed.

-- Appends to a job's log: pairs of stream and bytes, from ARGV[first] to ARGV[last]. A full Redis loses them, not more:
-- the result still carries the output.
local function append(id, job, first, last)
  for i = first, last, 2 do
    redis.pcall('XADD', P .. 'log:' .. id, 'MAXLEN', '~', LOG_ENTRIES_KEPT, '*',
      'stream', ARGV[i], 'attempt', job.attempts, 'data', ARGV[i + 1])
  end
end
