-- Put between the prelude and the scripts that end jobs, or hold back others until one has ended.
--
-- A job ends once: with one result, a record that goes after the time it is kept, and its unique key free. One that was
-- given up is a dead letter beside.

-- A result of our own making, in the encoding of the job; the shape is outcome.rs's JobResult.
local function our_result(id, job, outcome, code, message)
  local result = {
    id = id,
    outcome = outcome,
    attempts = tonumber(job.attempts) or 0,
    worker = job.worker,
    finished_at_ms = NOW,
  }
  if code then
    result.error = { code = code, message = message }
  end
  if job.enc == 'msgpack' then return cmsgpack.pack(result) end
  return cjson.encode(result)
end

-- Takes a unique key for a job; answers who holds it when that is another one. A holder holds it while it lives, and
-- until `ttl` ms after it took it; a lock whose holder is gone or over is free.
local function take_unique(key, id, ttl)
  local lock = P .. 'unique:' .. key
  local before = call('GET', lock)
  if before and before ~= id then
    if call('PTTL', lock) > 0 then return before end
    local state = call('HGET', P .. 'job:' .. before, 'state')
    if state and state ~= 'finished' and state ~= 'dead' then return before end
  end
  call('SET', lock, id)
  if ttl > 0 then call('HSET', P .. 'job:' .. id, 'unique_until', NOW + ttl) end
  return nil
end

-- Frees a job's unique key at its end, or leaves it to its time.
local function free_unique(id, job)
  if not job.unique then return end
  local lock = P .. 'unique:' .. job.unique
  if call('GET', lock) ~= id then return end
  local left = (tonumber(call('HGET', P .. 'job:' .. id, 'unique_until')) or 0) - NOW
  if left > 0 then call('PEXPIRE', lock, left) else call('DEL', lock) end
end

-- Ends a job: its one result, its record's end, its log's end. `state` is finished or dead.
local function close(id, job, state, outcome, result, message)
  local record = P .. 'job:' .. id
  local keep = job.keep
  if tonumber(keep) < KEEP_LEAST_MS then keep = KEEP_LEAST_MS end
  if job.expires_at then call('ZREM', P .. 'expires', id) end
  free_unique(id, job)
  local over = {}
  -- A dead letter keeps its payload as long as its record, so that it can be queued again.
  if state == 'finished' then over[1] = 'payload' end
  -- Of a running job, what the lease tells does not say whether somebody wants it cancelled.
  if job.cancel or job.state == 'running' then over[#over + 1] = 'cancel' end
  if job.state == 'delayed' then over[#over + 1] = 'run_at' end
  if #over > 0 then call('HDEL', record, unpack(over)) end
  local ended = outcome .. ' ' .. NOW_TEXT
  if message then
    call('HSET', record, 'state', state, 'ended', ended, 'error', message)
  else
    call('HSET', record, 'state', state, 'ended', ended)
  end
  call('PEXPIRE', record, keep)
  local key = P .. 'result:' .. id
  if call('RPUSH', key, result) > 1 then
    -- A result that outlived its record, and the id was used again: the first one stays.
    call('RPOP', key)
  else
    call('PEXPIRE', key, keep)
    if job.reply then
      local reply = P .. 'reply:' .. job.reply
      call('XADD', reply, 'MAXLEN', '~', REPLIES_KEPT, '*', 'id', id, 'outcome', outcome, 'result', result)
      if call('PTTL', reply) < tonumber(keep) then call('PEXPIRE', reply, keep) end
    end
  end
  if job.log then
    local log = P .. 'log:' .. id
    call('XADD', log, '*', 'stream', 'end', 'outcome', outcome)
    call('PEXPIRE', log, keep)
  end
  count('finished_' .. outcome)
  local by = job.worker and ' worker ' .. job.worker or ''
  event(state, id, job, ' outcome ' .. outcome .. by .. ' attempt ' .. job.attempts)
  job.state = state
end

-- Keeps one writer of many dead letters from displacing all others: when the stream is nearly full,
-- a share that has more than its part loses its own oldest letter. `letters:<share>` lists the
-- letters of a share, oldest first; some of them may have been dropped since.
local function hold_share(share, letter)
  local list = P .. 'letters:' .. share
  local held = call('RPUSH', list, letter)
  call('PEXPIRE', list, LETTERS_LIFE_MS)
  if held > DEAD_KEPT then call('LTRIM', list, -DEAD_KEPT, -1) end
  if held <= DEAD_SHARE or call('XLEN', P .. 'dead') < DEAD_KEPT - DEAD_MARGIN then return end
  for _ = 1, DEAD_MARGIN do
    local oldest = call('LPOP', list)
    if not oldest or oldest == letter or call('XDEL', P .. 'dead', oldest) == 1 then return end
  end
end

-- The record names its letter, so that one job is found among all dead letters at once. `share`
-- counts the letter; it is the job's tenant when left out.
local function dead_letter(id, job, reason, message, share)
  local letter = call('XADD', P .. 'dead', 'MAXLEN', '~', DEAD_KEPT, '*',
    'id', id, 'reason', reason, 'error', message, 'class', job.class, 'tenant', job.tenant)
  call('HSET', P .. 'job:' .. id, 'letter', letter)
  count('dead')
  hold_share(share or job.tenant, letter)
end

local function cancelled(id, job)
  close(id, job, 'finished', 'cancelled', our_result(id, job, 'cancelled'))
end

local function expired(id, job)
  close(id, job, 'finished', 'expired', our_result(id, job, 'expired'))
end
