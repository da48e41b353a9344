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
-- budget: attempt or lost); dead (result, outcome, reason, error); return (no values: the job goes
-- back to its place, and its attempt is not counted).
--
-- A slot that becomes free gets its next job in the same step. If the call is repeated with the
-- same word, and is still the last call of its lane, it returns the same jobs.
--
-- The leases are ended first, because that frees memory: with another order, a full Redis could
-- reject the script. A crash in between is not possible.

local worker, word = ARGV[1], ARGV[2]
local lane, wanted, memory, cpu = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local CLASSES = 8
local FIRST = CLASSES + 3 * ARGV[7]

-- Indices in ARGV at which the leases begin, the tokens of each class, and the values of these
-- tokens in the tables of leases.
local places, tokens = {}, {}
local place = FIRST
while place <= #ARGV do
  local class = ARGV[place]
  places[#places + 1] = place
  tokens[class] = tokens[class] or {}
  tokens[class][#tokens[class] + 1] = ARGV[place + 1]
  place = place + 9 + 2 * ARGV[place + 8]
end
local bound = {}
for class, some in pairs(tokens) do
  bound[class] = {}
  for i, entry in ipairs(call('HMGET', P .. 'bound:' .. class, unpack(some))) do
    bound[class][some[i]] = entry
  end
end

local leases, ending, replies, taken, fenced = {}, {}, {}, {}, 0
for _, i in ipairs(places) do
  local class, token, id = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  -- To publish a result, the value of the token is enough, and the job's record is not read.
  local job = ARGV[i + 3] == 'publish' and leased_job(bound[class][token], id, token, worker)
    or load(id)
  local mine = job and job.token == token and job.worker == worker
  if held(id, job, token, worker, bound[class][token]) then
    -- A second settlement of the same lease in this call finds it settled.
    bound[class][token] = nil
    taken[token] = true
    ending[class] = ending[class] or {}
    ending[class][#ending[class] + 1] = token
    leases[#leases + 1] = { id, job, i }
    replies[#replies + 1] = 'settled'
  elseif mine and (job.state ~= 'running' or taken[token])
    or job and call('HGET', P .. 'job:' .. id, 'settled') == token .. ' ' .. worker then
    replies[#replies + 1] = 'settled'
  else
    fenced = fenced + 1
    replies[#replies + 1] = 'stale'
  end
end

for class, some in pairs(ending) do
  destroy(class, some)
  call('HDEL', P .. 'bound:' .. class, unpack(some))
end
if fenced > 0 then
  allow_when_full()
  for _ = 1, fenced do count('stale') end
end

-- Records the settlement of a job that lives on, so that a repeated settlement is recognised. The
-- job is bound again before long, and then its record no longer names this lease.
local function remember(id, job, ...)
  call('HSET', P .. 'job:' .. id, 'settled', job.token .. ' ' .. worker, ...)
end

local function again(id, job, after, why, budget)
  local record = P .. 'job:' .. id
  remember(id, job, 'error', why)
  if budget == 'lost' then
    call('HINCRBY', record, 'lost', 1)
    count('lost')
  end
  cut_log(id, job)
  after = tonumber(after)
  if after > 0 then
    call('HSET', record, 'state', 'delayed', 'run_at', NOW + after)
    call('ZADD', P .. 'delayed', NOW + after, id)
  else
    make_ready(id, job, score_at(NOW, job))
  end
  count('retried')
  event('retried', id, job,
    string.format(' worker %s attempt %s after_ms %.0f', worker, job.attempts, after))
end

-- Appends the last output of a job. The record of a published job ends in this call, so its field
-- `log` is not written.
local function last_words(id, job, settlement, first, chunks)
  if chunks == 0 then return end
  append(id, job, first, first + 2 * chunks - 1)
  job.log = '1'
  if settlement ~= 'publish' then
    call('HSET', P .. 'job:' .. id, 'log', '1')
    call('PEXPIRE', P .. 'log:' .. id, math.max(tonumber(job.keep), LOG_LIFE_MS))
  end
end

for _, lease in ipairs(leases) do
  local id, job, at = unpack(lease)
  local settlement, a, b, c, d, chunks = unpack(ARGV, at + 3, at + 8)
  leave(job.class, job.tenant, id)
  last_words(id, job, settlement, at + 9, tonumber(chunks))
  if settlement == 'publish' then
    close(id, job, 'finished', b, a)
    retain(id, job, #a)
  elseif settlement == 'dead' then
    close(id, job, 'dead', b, a, d)
    dead_letter(id, job, c, d)
    retain(id, job, #a)
  elseif job.cancel then
    cancelled(id, job)
  elseif settlement == 'return' then
    remember(id, job)
    call('HINCRBY', P .. 'job:' .. id, 'attempts', -1)
    make_ready(id, job, job.score)
    -- The job counts as not started, so it can expire again.
    if job.expires_at and job.attempts == '1' then
      call('ZADD', P .. 'expires', job.expires_at, id)
    end
    count('given_back')
    event('given_back', id, job, ' worker ' .. worker)
  elseif settlement == 'retry' then
    again(id, job, a, b, c)
  end
end

if FIRST == CLASSES or wanted == 0 then
  flush()
  return replies
end

-- If this call is repeated because its answer was lost, return the jobs that it claimed before.
-- Jobs whose leases have lapsed since then are not replaced by new ones.
local claimed = P .. 'claimed:' .. worker .. ':' .. lane
local made = call('GET', claimed)
if made and string.sub(made, 1, #word + 1) == word .. ' ' then
  for class, ticket in string.gmatch(made, ' (%S+) (%S+)') do
    local entry = lease_of(class, ticket)
    local id = leased(entry)
    local job = id and load(id)
    if held(id, job, ticket, worker, entry) then
      replies[#replies + 1] = class
      replies[#replies + 1] = ticket
      replies[#replies + 1] = reply(id, read(id), job.attempts, job.started_at)
    end
  end
  flush()
  return replies
end

settle_ready()
local leases_made = {}
for c = CLASSES, FIRST - 1, 3 do
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
    for i, answer in ipairs(#unbound > 0 and bind(worker, class, unbound) or {}) do
      if answer[1] == 'bound' then
        wanted, memory, cpu = wanted - 1, memory - each_memory, cpu - each_cpu
        replies[#replies + 1] = class
        replies[#replies + 1] = unbound[i]
        replies[#replies + 1] = answer
        leases_made[#leases_made + 1] = class .. ' ' .. unbound[i]
      elseif answer[1] == 'again' then
        destroy(class, { unbound[i] })
        issue(class, 1)
      end
    end
  end
end
if #leases_made > 0 then
  call('SET', claimed, word .. ' ' .. table.concat(leases_made, ' '), 'PX', CLAIM_LIFE_MS)
end
flush()
return replies
