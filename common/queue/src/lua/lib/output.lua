-- Library: appends output to a job's log.
--
-- This file is put after writes.lua and before the scripts that write a job's output. It takes no
-- arguments.

-- Appends pairs of stream and bytes to a job's log, from ARGV[first] to ARGV[last]. A full Redis
-- loses only these chunks: the result still contains the output.
local function append_output(id, job, first, last)
  for i = first, last, 2 do
    redis.pcall('XADD', P .. 'log:' .. id, 'MAXLEN', '~', LOG_ENTRIES_KEPT, '*',
      'stream', ARGV[i], 'attempt', job.attempts, 'data', ARGV[i + 1])
  end
end
