-- Turns intake entries into jobs, or into dead letters.
--
-- ARGV     for each entry, in order, 18 values:
--          verdict (accept or reject), entry id, job id ('' for the entry's own), payload, encoding, class, tenant,
--          priority, delay_ms (0 for none), at_ms (0 for none), ttl_ms (0 for none), max_attempts, backoff_ms,
--          keep_ms, retry_on (outcomes parted by commas, or ''), unique ('' for none), unique_ttl_ms
--          (0: until the job ends), and
--          for accept: reply stream and traceparent, parted by a space, each possibly empty;
--          for reject: reply stream, error code and message, parted by spaces, the first possibly empty.
-- Replies  for each entry: what became of it (admitted, rejected, cancelled, duplicate, gone), and the job's id.
--
-- An entry is admitted by whoever acknowledges it. A job is admitted once by its id, for as long as its record lasts.

local STRIDE = 18
local jobs = P .. 'jobs'

-- The entry's own time, which keeps jobs in the order of submission whoever admits them; never in the future,
-- because a producer may have made up its stream id.
local function submitted(entry)
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if ms > NOW then return NOW, 0 end
  return ms, math.min(seq, 999) / 1000
end

local function split(pair)
  local space = string.find(pair, ' ', 1, true)
  return string.sub(pair, 1, space - 1), string.sub(pair, space + 1)
end

-- `usual`: nothing is wrong with the job, so there is no dead letter to look at.
local function refuse(id, job, code, message, usual)
  local result = our_result(id, job, 'rejected', code, message)
  if usual then
    close(id, job, 'finished', 'rejected', result, 'error', message)
  else
    close(id, job, 'dead', 'rejected', result, 'error', message)
    dead_letter(id, job, code, message)
  end
  return 'rejected'
end

local function admit(verdict, entry, id, payload, enc, class, tenant, priority, delay, at, ttl, max_attempts,
    backoff, keep, retry_on, unique, unique_ttl, extra)
  local ms, fraction = submitted(entry)
  local job = {
    class = class, tenant = tenant, priority = priority, enc = enc, keep = keep, attempts = '0', lost = '0',
  }
  local record = P .. 'job:' .. id
  call('HSET', record, 'class', class, 'tenant', tenant, 'priority', priority, 'enc', enc, 'keep', keep,
    'attempts', 0, 'lost', 0, 'max_attempts', max_attempts, 'backoff', backoff, 'submitted_at', ms)

  local reply, rest = split(extra)
  if reply ~= '' then
    job.reply = reply
    call('HSET', record, 'reply', reply)
  end

  if verdict == 'reject' then
    return refuse(id, job, split(rest))
  end
  if rest ~= '' then call('HSET', record, 'traceparent', rest) end
  if retry_on ~= '' then call('HSET', record, 'retry_on', retry_on) end
  local classes = P .. 'classes'
  if call('SISMEMBER', classes, class) == 0 and call('SCARD', classes) >= CLASSES_MOST then
    local message = string.format('class "%s" would be one more than the %d in use', class, CLASSES_MOST)
    return refuse(id, job, 'too_many_classes', message)
  end
  -- Before the lock: a cancelled job never holds it.
  local cancel = call('DEL', P .. 'cancelled:' .. id) == 1
  if unique ~= '' and not cancel then
    local holder = take_unique(unique, id, tonumber(unique_ttl))
    if holder then
      local message = string.format('job "%s" holds the unique key "%s"', holder, unique)
      count('refused_unique')
      return refuse(id, job, 'duplicate', message, true)
    end
    job.unique = unique
    call('HSET', record, 'unique', unique, 'unique_ttl', unique_ttl)
  end
  count('admitted')
  event('admitted', id, job)

  -- A cancel that was admitted before its job left a note.
  if cancel then
    cancelled(id, job)
    return 'cancelled'
  end

  call('HSET', record, 'payload', payload)
  if tonumber(ttl) > 0 then
    local expires_at = ms + tonumber(ttl)
    call('HSET', record, 'expires_at', expires_at)
    call('ZADD', P .. 'expires', expires_at, id)
  end
  local run_at = tonumber(at)
  if run_at == 0 then run_at = ms + tonumber(delay) end
  if run_at > NOW then
    call('HSET', record, 'state', 'delayed', 'run_at', run_at)
    call('ZADD', P .. 'delayed', run_at, id)
  else
    make_ready(id, job, score_at(ms + fraction, job), ms)
  end
  return 'admitted'
end

local replies = {}
for i = 0, #ARGV / STRIDE - 1 do
  local item = { unpack(ARGV, i * STRIDE + 1, (i + 1) * STRIDE) }
  local entry = item[2]
  if item[3] == '' then item[3] = entry end
  local id = item[3]
  local became
  if call('XACK', jobs, ADMIT_GROUP, entry) == 0 then
    became = 'gone'
  else
    call('XDEL', jobs, entry)
    if call('EXISTS', P .. 'job:' .. id) == 1 then
      became = 'duplicate'
      count('duplicates')
    else
      became = admit(unpack(item))
    end
  end
  replies[#replies + 1] = became
  replies[#replies + 1] = id
end
return replies
