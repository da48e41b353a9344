-- Library: limits the memory that a tenant's results take in Redis.
--
-- This file is put after terminal.lua and before the script that publishes results. It takes no
-- arguments.
--
-- `kept:<t>` is a sorted set of a tenant's large results, "<bytes> <time of the end> <id>", by the
-- time at which they expire. The sorted set `retained` holds the sum of the bytes of each tenant. A
-- tenant may have a limit of its own (`max_retained`). Without one, its large results are shortened
-- when Redis is nearly full.
--
-- A shortened result keeps its outcome and loses the output of the program, and its error says so.

-- Returns the parts of a member of `kept:<t>`.
local function member_parts(member)
  local bytes, ended_at, id = string.match(member, '^(%d+) (%d+) (.*)$')
  return tonumber(bytes), ended_at, id
end

-- Replaces a result by one without output, if it still is the result of this end of the job.
local function shorten_result(tenant, ended_at, id)
  local job = load_job(id)
  local outcome, at = string.match(call('HGET', P .. 'job:' .. id, 'ended') or '', '^(%S+) (%d+)$')
  if not job or at ~= ended_at then return end
  local why =
    string.format('the output was dropped: tenant "%s" has more results than it may keep', tenant)
  local result = queue_result(id, job, outcome, 'output_dropped', why, {
    finished_at_ms = tonumber(at), truncated = { stdout = true, stderr = true },
  })
  if call('EXISTS', P .. 'result:' .. id) == 1 then
    call('LSET', P .. 'result:' .. id, 0, result)
  end
  call('UNLINK', P .. 'log:' .. id)
  count('outputs_dropped')
end

-- Removes these members from a tenant's large results.
local function remove_kept(tenant, members)
  if #members == 0 then return end
  local bytes = 0
  for _, member in ipairs(members) do bytes = bytes + member_parts(member) end
  call('ZREM', P .. 'kept:' .. tenant, unpack(members))
  call('ZINCRBY', P .. 'retained', -bytes, tenant)
end

-- Shortens a tenant's results, those that expire first first, until `excess` bytes are freed or
-- only `newest` is left. Returns the number of bytes that are not freed. One call shortens a
-- limited number, so that it does not block Redis for long; the next large result continues.
local shortenings_left = 64
local function shorten_results(tenant, excess, newest)
  while excess > 0 and shortenings_left > 0 do
    local first, second = unpack(call('ZRANGE', P .. 'kept:' .. tenant, 0, 1))
    if first == newest then first = second end
    if not first then return excess end
    local bytes, ended_at, id = member_parts(first)
    shorten_result(tenant, ended_at, id)
    remove_kept(tenant, { first })
    excess = excess - bytes
    shortenings_left = shortenings_left - 1
  end
  return excess
end

-- Frees memory when Redis uses more than three quarters of its limit, at the expense of the tenants
-- with the most results. Results may take a quarter of the limit in any case: if they take less,
-- other data fills Redis.
local function free_memory(newest)
  local memory = call('INFO', 'memory')
  local max_bytes = tonumber(string.match(memory, '\nmaxmemory:(%d+)')) or 0
  local excess = tonumber(string.match(memory, '\nused_memory:(%d+)')) - max_bytes * 0.75
  if max_bytes == 0 or excess <= 0 then return end
  local tenants, sum = call('ZRANGE', P .. 'retained', 0, 31, 'REV', 'WITHSCORES'), 0
  for i = 2, #tenants, 2 do sum = sum + tenants[i] end
  excess = math.min(excess, sum - max_bytes * 0.25)
  for i = 1, #tenants, 2 do
    if excess <= 0 then return end
    excess = shorten_results(tenants[i], excess, newest)
  end
end

-- Counts a large result that was just published, and makes room for it.
local function retain_result(id, job, bytes)
  local COUNTED_BYTES, REMOVED_PER_CALL = 4096, 64
  if bytes < COUNTED_BYTES then return end
  local tenant = job.tenant
  local kept, retained = P .. 'kept:' .. tenant, P .. 'retained'
  local life = call('PTTL', P .. 'result:' .. id)
  -- Redis deletes an expired set without changing the tenant's sum.
  if call('EXISTS', kept) == 0 then call('ZREM', retained, tenant) end
  remove_kept(tenant, call('ZRANGE', kept, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, REMOVED_PER_CALL))
  local newest = string.format('%.0f %s %s', bytes, NOW_TEXT, id)
  call('ZADD', kept, NOW + life, newest)
  local sum = tonumber(call('ZINCRBY', retained, bytes, tenant))
  for _, key in ipairs({ kept, retained }) do
    if call('PTTL', key) < life then call('PEXPIRE', key, life) end
  end
  local max_bytes = tonumber(call('HGET', P .. 'tenant:' .. tenant, 'max_retained'))
  if max_bytes then shorten_results(tenant, sum - max_bytes, newest) end
  free_memory(newest)
end
