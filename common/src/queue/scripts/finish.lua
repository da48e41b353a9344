-- Settles leases, each if it is still held.
--
-- ARGV     worker, a word that is this call's own, its lane (calls of a worker at the same time have different ones),
--          how many jobs to claim, how much memory (MiB) and CPU (thousandths of a core) they may take together, how many classes to claim from, for each class its name and what one
--          of its jobs takes of both, then for each lease: class, token, job id, settlement, four values of the
--          settlement's own, '' where it has fewer, how many chunks its job printed that its log does not have yet,
--          and for each of those: stream (stdout or stderr), bytes. The settlements:
--          publish:  result, outcome
--          retry:    after_ms, why, budget (attempt or lost)
--          dead:     result, outcome, reason, error
--          return:   (nothing: the job goes back to its place, its attempt not counted)
-- Replies  for each: 'settled' or 'stale'; then, for each job that was claimed: class, ticket, and what bind.lua
--          replies for one, 'bound' and all
--
-- A slot that is freed takes its next job in the same step.
-- Repeated with the same word, as the last of its lane, the call answers the same jobs.
--
-- The leases end first, then the rest: a crash between could not happen, but a full Redis could refuse.

local worker, word = ARGV[1], ARGV[2]
local lane, wanted, memory, cpu = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local CLASSES = 8
local FIRST = CLASSES + 3 * ARGV[7]

-- Where in ARGV each lease begins, and the entry of its token in its class' table of leases.
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
  for i, entry in ipairs(call('HMGET', P .. 'bound:' .. class, unpack(some))) do bound[class][some[i]] = entry end
end

local leases, ending, replies, taken, fenced = {}, {}, {}, {}, 0
for _, i in ipairs(places) do
  local class, token, id = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  -- To publish a result, the lease tells enough of the job.
  local job = ARGV[i + 3] == 'publish' and leased_job(bound[class][token], id, token, worker) or load(id)
  local mine = job and job.token == token and job.worker == worker
  if held(id, job, token, worker, bound[class][token]) then
    -- The same lease once more in one call finds it settled.
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

-- A job that lives on is bound anew before long, and then its record no longer says whose it was before.
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
  event('retried', id, job, string.format(' worker %s attempt %s after_ms %.0f', worker, job.attempts, after))
end

-- The last of what a job printed. A record that is over for good is not asked again whether there is a log.
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
    -- It has not been started after all.
    if job.expires_at and job.attempts == '1' then call('ZADD', P .. 'expires', job.expires_at, id) end
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

-- What this call claimed when it was made before, should its answer have been lost. A worker that has forgotten gets
-- nothing new for it: its leases lapse.
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
  -- What does not fit is left unread, for a worker that it fits.
  local fit = math.min(wanted, math.floor(memory / each_memory), math.floor(cpu / each_cpu))
  local read_now = fit > 0
    and redis.pcall('XREADGROUP', 'GROUP', WORKER_GROUP, worker, 'COUNT', fit, 'STREAMS', stream, '>')
  -- No stream yet, or its group was lost: the reader that waits for tickets makes it anew.
  if read_now and not read_now.err and read_now[1] then
    local tickets = {}
    for i, entry in ipairs(read_now[1][2]) do tickets[i] = entry[1] end
    -- A group that was made anew delivers tickets again that are leases: those are their holders' to settle.
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
