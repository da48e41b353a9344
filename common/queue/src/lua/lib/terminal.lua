-- Library: ends jobs, with their results, logs, unique keys and dead letters.
--
-- This file is put after writes.lua and before the scripts that end jobs or take unique keys. It
-- takes no arguments.
--
-- A job ends once: it gets one result, its record expires after its retention, and its unique key
-- becomes free. A job that was given up also becomes a dead letter.

-- Returns a result made by the queue itself, in the encoding of the job. Its form is that of
-- JobResult in outcome.rs.
local function queue_result(id, job, outcome, code, message, more)
  local result = more or {}
  result.id = id
  result.outcome = outcome
  result.attempts = tonumber(job.attempts) or 0
  result.worker = job.worker
  result.finished_at_ms = result.finished_at_ms or NOW
  if code then
    result.error = { code = code, message = message }
  end
  if job.enc == 'msgpack' then return cmsgpack.pack(result) end
  return cjson.encode(result)
end

-- Takes a unique key for a job. Returns the job that holds it, if another one does. A holder keeps
-- the key while it lives, and until `ttl` ms after it took the key. A key is free if its holder has
-- no record or has ended.
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

-- Frees a job's unique key at its end, or lets it expire at its time.
local function free_unique(id, job)
  if not job.unique then return end
  local lock = P .. 'unique:' .. job.unique
  if call('GET', lock) ~= id then return end
  local left = (tonumber(call('HGET', P .. 'job:' .. id, 'unique_until')) or 0) - NOW
  if left > 0 then call('PEXPIRE', lock, left) else call('DEL', lock) end
end

-- Appends a name with its bytes to a list that holds at most `max_bytes`, for at least `life` ms.
-- Returns the names that were removed to make room, oldest first; the newest stays, however large.
-- Each item begins with the sum of all bytes up to it.
local function push_bounded(key, name, bytes, max_bytes, life)
  local last = call('LINDEX', key, -1)
  local sum = (last and tonumber(string.match(last, '^%d+')) or 0) + bytes
  call('RPUSH', key, string.format('%.0f %.0f %s', sum, bytes, name))
  if call('PTTL', key) < life then call('PEXPIRE', key, life) end
  local removed = {}
  repeat
    local up_to, own_bytes, oldest = string.match(call('LINDEX', key, 0), '^(%d+) (%d+) (.*)$')
    if sum - up_to + own_bytes <= max_bytes or oldest == name then return removed end
    call('LPOP', key)
    removed[#removed + 1] = oldest
  until false
end

-- Writes a job's end to its reply stream. Large results are removed from the stream according to
-- their bytes, so that they are not stored twice for long: `bulk:<name>` lists them.
local function write_reply(id, job, outcome, result, keep)
  local COUNTED_BYTES, BYTES_KEPT = 4096, 12582912
  local stream = P .. 'reply:' .. job.reply
  local entry = call('XADD', stream, 'MAXLEN', '~', REPLIES_KEPT, '*',
    'id', id, 'outcome', outcome, 'result', result)
  if call('PTTL', stream) < tonumber(keep) then call('PEXPIRE', stream, keep) end
  if #result < COUNTED_BYTES then return end
  local removed =
    push_bounded(P .. 'bulk:' .. job.reply, entry, #result, BYTES_KEPT, tonumber(keep))
  if #removed > 0 then call('XTRIM', stream, 'MINID', '=', id_after_all({ removed[#removed] })) end
end

-- Ends a job's log. A large result contains the output itself, so its log stays only for the
-- clients that follow it now.
local function end_log(id, outcome, result, keep)
  local LARGE_BYTES, BYTES_KEPT, LIFE_MS = 16384, 4194304, 60000
  local log = P .. 'log:' .. id
  call('XADD', log, '*', 'stream', 'end', 'outcome', outcome)
  if #result < LARGE_BYTES then
    call('PEXPIRE', log, keep)
    return
  end
  call('PEXPIRE', log, math.min(tonumber(keep), LIFE_MS))
  local bytes = call('MEMORY', 'USAGE', log) or 0
  local removed = push_bounded(P .. 'ended_logs', id, bytes, BYTES_KEPT, LIFE_MS)
  for _, other in ipairs(removed) do
    -- A job that was queued again in the meantime has a new log, which lives longer.
    local before = P .. 'log:' .. other
    if call('PTTL', before) <= LIFE_MS then call('UNLINK', before) end
  end
end

-- Shortens the log of a job that is retried; otherwise a hundred attempts would fill it. The job's
-- result does not contain this output.
local function trim_log(id, job)
  local LARGE_BYTES, ENTRIES_KEPT = 1048576, 16
  if not job.log then return end
  local log = P .. 'log:' .. id
  if (call('MEMORY', 'USAGE', log) or 0) > LARGE_BYTES then
    call('XTRIM', log, 'MAXLEN', ENTRIES_KEPT)
  end
end

-- Ends a job: writes its one result, and sets when its record and its log expire. `state` is
-- finished or dead. `message` is the error in the record, if any.
local function end_job(id, job, state, outcome, result, message)
  local record = P .. 'job:' .. id
  local LARGE_BYTES, LARGE_KEEP_MS = 1048576, 604800000
  local keep = job.keep
  if tonumber(keep) < RETENTION_MIN_MS then keep = RETENTION_MIN_MS end
  -- A small program must not keep a large result in Redis for a year.
  if #result >= LARGE_BYTES then keep = math.min(tonumber(keep), LARGE_KEEP_MS) end
  if job.expires_at then call('ZREM', P .. 'expires', id) end
  free_unique(id, job)
  local obsolete = {}
  -- A dead letter keeps its payload as long as its record, so that it can be queued again.
  if state == 'finished' then obsolete[1] = 'payload' end
  -- A job that was built from its lease entry does not show whether its cancel was requested.
  if job.cancel or job.state == 'running' then obsolete[#obsolete + 1] = 'cancel' end
  if job.state == 'delayed' then obsolete[#obsolete + 1] = 'run_at' end
  if #obsolete > 0 then call('HDEL', record, unpack(obsolete)) end
  local ended = outcome .. ' ' .. NOW_TEXT
  if message then
    call('HSET', record, 'state', state, 'ended', ended, 'error', message)
  else
    call('HSET', record, 'state', state, 'ended', ended)
  end
  call('PEXPIRE', record, keep)
  local key = P .. 'result:' .. id
  if call('RPUSH', key, result) > 1 then
    -- The result of an earlier job of this id has outlived its record: the first result stays.
    call('RPOP', key)
  else
    call('PEXPIRE', key, keep)
    if job.reply then write_reply(id, job, outcome, result, keep) end
  end
  if job.log then end_log(id, outcome, result, keep) end
  count('finished_' .. outcome)
  local by = job.worker and ' worker ' .. job.worker or ''
  add_event(state, id, job, ' outcome ' .. outcome .. by .. ' attempt ' .. job.attempts)
  job.state = state
end

-- Limits the share of one writer, so that its dead letters do not displace all others. When the
-- stream is nearly full, a share above its limit loses its own oldest letter. `letters:<share>`
-- lists the letters of a share, oldest first; some of them may have been dropped since then.
local function limit_share(share, letter)
  local list = P .. 'letters:' .. share
  local letters = call('RPUSH', list, letter)
  call('PEXPIRE', list, LETTER_LIST_LIFE_MS)
  if letters > LETTERS_KEPT then call('LTRIM', list, -LETTERS_KEPT, -1) end
  if letters <= LETTERS_PER_SHARE or call('XLEN', P .. 'dead') < LETTERS_KEPT - LETTERS_MARGIN then
    return
  end
  for _ = 1, LETTERS_MARGIN do
    local oldest = call('LPOP', list)
    if not oldest or oldest == letter or call('XDEL', P .. 'dead', oldest) == 1 then return end
  end
end

-- Writes a job's dead letter. The job's record names the letter, so that it is found at once among
-- all letters. The letter counts for `share`, by default the job's tenant.
local function write_dead_letter(id, job, reason, message, share)
  local letter = call('XADD', P .. 'dead', 'MAXLEN', '~', LETTERS_KEPT, '*',
    'id', id, 'reason', reason, 'error', message, 'class', job.class, 'tenant', job.tenant)
  call('HSET', P .. 'job:' .. id, 'letter', letter)
  count('dead')
  limit_share(share or job.tenant, letter)
end

local function end_cancelled(id, job)
  end_job(id, job, 'finished', 'cancelled', queue_result(id, job, 'cancelled'))
end

local function end_expired(id, job)
  end_job(id, job, 'finished', 'expired', queue_result(id, job, 'expired'))
end
