-- Settles each lease that is still held, and claims jobs for the slots that become free.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker
-- ARGV[2]  random word that identifies this call
-- ARGV[3]  lane: concurrent calls of one worker have different lanes
-- ARGV[4]  number of jobs to claim
-- ARGV[5]  memory that the claimed jobs may take together (MiB)
-- ARGV[6]  CPU that the claimed jobs may take together (thousandths of a core)
-- ARGV[7]  number of classes to claim from
-- then for each class:
--   ARGV[n]    class
--   ARGV[n+1]  memory of one of its jobs (MiB)
--   ARGV[n+2]  CPU of one of its jobs (thousandths of a core)
-- then for each lease:
--   ARGV[n]    class
--   ARGV[n+1]  token
--   ARGV[n+2]  job id
--   ARGV[n+3]  settlement
--   ARGV[n+4]  first of four values of the settlement, '' where it has fewer
--   ARGV[n+8]  number of chunks that the job printed and its log does not have yet
--   ARGV[n+9]  for each chunk: stream (stdout or stderr) and bytes
-- Result   for each lease: 'settled' or 'stale'; then for each claimed job: class, ticket, and the
--          answer {'bound', …} as in bind.lua
--
-- The settlements and their values are: publish (result, outcome); retry (delay in ms, reason,
-- budget: attempt, lost, or none, which does not count the attempt); dead (result, outcome, reason,
-- error); return (no values: the job goes back to its place, and its attempt is not counted).
--
-- A slot that becomes free gets its next job in the same step. If the call is repeated with the
-- same word, and is still the last call of its lane, it returns the same jobs.
--
-- The leases are ended first, because that frees memory: with another order, a full Redis could
-- reject the script. A crash in between is not possible.

local worker, call_word, lane = ARGV[1], ARGV[2], ARGV[3]
local wanted, memory, cpu = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local class_count = ARGV[7]
local FIRST_CLASS = 8
local FIRST_LEASE = FIRST_CLASS + 3 * class_count

-- Indices in ARGV at which the leases begin, the tokens of each class, and the values of these
-- tokens in the tables of leases.
local positions, tokens = {}, {}
local position = FIRST_LEASE
while position <= #ARGV do
  local class, token, chunks = ARGV[position], ARGV[position + 1], ARGV[position + 8]
  positions[#positions + 1] = position
  tokens[class] = tokens[class] or {}
  tokens[class][#tokens[class] + 1] = token
  position = position + 9 + 2 * chunks
end
local bound = {}
for class, tokens_here in pairs(tokens) do
  bound[class] = {}
  for i, entry in ipairs(call('HMGET', P .. 'bound:' .. class, unpack(tokens_here))) do
    bound[class][tokens_here[i]] = entry
  end
end

local leases, ending_tokens, replies, settled_tokens, fenced = {}, {}, {}, {}, 0
for _, at in ipairs(positions) do
  local class, token, id, settlement = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  -- To publish a result, the value of the token is enough, and the job's record is not read.
  local job = settlement == 'publish' and leased_job(bound[class][token], id, token, worker)
    or load_job(id)
  local is_ours = job and job.token == token and job.worker == worker
  if is_held(id, job, token, worker, bound[class][token]) then
    -- A second settlement of the same lease in this call finds it settled.
    bound[class][token] = nil
    settled_tokens[token] = true
    ending_tokens[class] = ending_tokens[class] or {}
    ending_tokens[class][#ending_tokens[class] + 1] = token
    leases[#leases + 1] = { id, job, at }
    replies[#replies + 1] = 'settled'
  elseif is_ours and (job.state ~= 'running' or settled_tokens[token])
    or job and call('HGET', P .. 'job:' .. id, 'settled') == token .. ' ' .. worker then
    replies[#replies + 1] = 'settled'
  else
    fenced = fenced + 1
    replies[#replies + 1] = 'stale'
  end
end

for class, tokens_here in pairs(ending_tokens) do
  delete_tickets(class, tokens_here)
  call('HDEL', P .. 'bound:' .. class, unpack(tokens_here))
end
if fenced > 0 then
  allow_when_full()
  for _ = 1, fenced do count('stale') end
end

-- Records the settlement of a job that lives on, so that a repeated settlement is recognised. The
-- job is bound again before long, and then its record no longer names this lease.
local function record_settlement(id, job, ...)
  call('HSET', P .. 'job:' .. id, 'settled', job.token .. ' ' .. worker, ...)
end

-- Counts a job's attempt as not made. It then counts as not started, so it can expire again.
local function uncount_attempt(id, job)
  call('HINCRBY', P .. 'job:' .. id, 'attempts', -1)
  if job.expires_at and job.attempts == '1' then
    call('ZADD', P .. 'expires', job.expires_at, id)
  end
end

-- Makes a job ready again, after `delay` ms. `budget` is attempt, lost or none.
local function retry(id, job, delay, why, budget)
  local record = P .. 'job:' .. id
  record_settlement(id, job, 'error', why)
  if budget == 'lost' then
    call('HINCRBY', record, 'lost', 1)
    count('lost')
  elseif budget == 'none' then
    uncount_attempt(id, job)
  end
  trim_log(id, job)
  delay = tonumber(delay)
  if delay > 0 then
    call('HSET', record, 'state', 'delayed', 'run_at', NOW + delay)
    call('ZADD', P .. 'delayed', NOW + delay, id)
  else
    make_ready(id, job, score_at(NOW, job))
  end
  count('retried')
  add_event('retried', id, job,
    string.format(' worker %s attempt %s after_ms %.0f', worker, job.attempts, delay))
end

-- Appends the last output of a job. The record of a published job ends in this call, so its field
-- `log` is not written.
local function append_final_output(id, job, settlement, first, chunks)
  if chunks == 0 then return end
  append_output(id, job, first, first + 2 * chunks - 1)
  job.log = '1'
  if settlement ~= 'publish' then
    call('HSET', P .. 'job:' .. id, 'log', '1')
    call('PEXPIRE', P .. 'log:' .. id, math.max(tonumber(job.keep), LOG_LIFE_MS))
  end
end

for _, lease in ipairs(leases) do
  local id, job, at = unpack(lease)
  local settlement, chunks = ARGV[at + 3], tonumber(ARGV[at + 8])
  end_lease(job.class, job.tenant, id)
  append_final_output(id, job, settlement, at + 9, chunks)
  if settlement == 'publish' then
    local result, outcome = ARGV[at + 4], ARGV[at + 5]
    end_job(id, job, 'finished', outcome, result)
    retain_result(id, job, #result)
  elseif settlement == 'dead' then
    local result, outcome, reason, message = unpack(ARGV, at + 4, at + 7)
    end_job(id, job, 'dead', outcome, result, message)
    write_dead_letter(id, job, reason, message)
    retain_result(id, job, #result)
  elseif job.cancel then
    end_cancelled(id, job)
  elseif settlement == 'return' then
    record_settlement(id, job)
    make_ready(id, job, job.score)
    uncount_attempt(id, job)
    count('given_back')
    add_event('given_back', id, job, ' worker ' .. worker)
  elseif settlement == 'retry' then
    local delay, why, budget = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
    retry(id, job, delay, why, budget)
  end
end

if FIRST_LEASE == FIRST_CLASS or wanted == 0 then
  flush()
  return replies
end

-- If this call is repeated because its answer was lost, return the jobs that it claimed before.
-- Jobs whose leases have lapsed since then are not replaced by new ones.
local claimed = P .. 'claimed:' .. worker .. ':' .. lane
local last_claim = call('GET', claimed)
if last_claim and string.sub(last_claim, 1, #call_word + 1) == call_word .. ' ' then
  for class, ticket in string.gmatch(last_claim, ' (%S+) (%S+)') do
    local entry = read_lease(class, ticket)
    local id = leased_id(entry)
    local job = id and load_job(id)
    if is_held(id, job, ticket, worker, entry) then
      replies[#replies + 1] = class
      replies[#replies + 1] = ticket
      replies[#replies + 1] = bound_reply(id, read_job(id), job.attempts, job.started_at)
    end
  end
  flush()
  return replies
end

flush_ready()
local new_claims = {}
for c = FIRST_CLASS, FIRST_LEASE - 1, 3 do
  if wanted <= 0 then break end
  local class, each_memory, each_cpu = ARGV[c], ARGV[c + 1], ARGV[c + 2]
  local stream = P .. 'tickets:' .. class
  -- Tickets of jobs that do not fit are left unread, for workers that have the capacity.
  local fit = math.min(wanted, math.floor(memory / each_memory), math.floor(cpu / each_cpu))
  local read_now = fit > 0
    and redis.pcall('XREADGROUP', 'GROUP', WORKER_GROUP, worker, 'COUNT', fit,
      'STREAMS', stream, '>')
  -- If there is no stream yet, or its group was lost, the worker's blocking ticket reader creates
  -- it.
  if read_now and not read_now.err and read_now[1] then
    local tickets = {}
    for i, entry in ipairs(read_now[1][2]) do tickets[i] = entry[1] end
    -- A group that was created again also delivers tickets that are leases. Only their holders may
    -- settle them.
    local before, unbound = call('HMGET', P .. 'bound:' .. class, unpack(tickets)), {}
    for i, ticket in ipairs(tickets) do
      if not before[i] then unbound[#unbound + 1] = ticket end
    end
    for i, answer in ipairs(#unbound > 0 and bind_tickets(worker, class, unbound) or {}) do
      if answer[1] == 'bound' then
        wanted, memory, cpu = wanted - 1, memory - each_memory, cpu - each_cpu
        replies[#replies + 1] = class
        replies[#replies + 1] = unbound[i]
        replies[#replies + 1] = answer
        new_claims[#new_claims + 1] = class .. ' ' .. unbound[i]
      elseif answer[1] == 'again' then
        delete_tickets(class, { unbound[i] })
        issue_tickets(class, 1)
      end
    end
  end
end
if #new_claims > 0 then
  call('SET', claimed, call_word .. ' ' .. table.concat(new_claims, ' '), 'PX', CLAIM_LIFE_MS)
end
flush()
return replies
