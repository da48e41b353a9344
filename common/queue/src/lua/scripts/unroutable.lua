-- Finds classes with ready jobs that no live worker serves.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  mark or look
-- ARGV[2]  first class to check; further classes follow
-- Result   for each unroutable class: class, ready jobs, what every live worker lacks (tags or
--          room), and since when (ms) or false if it is not marked
--
-- With mark, it also checks the classes that were marked before. The begin and the end of the time
-- in which a class is unroutable are then written as one event each, however many workers check.
-- The jobs of a class that has been unroutable for long expire, so that no submitter can fill the
-- queue with jobs that never run.

local mark = ARGV[1] == 'mark'
local marked = P .. 'unroutable'

local classes, listed = {}, {}
local function list(class)
  if not listed[class] then
    listed[class] = true
    classes[#classes + 1] = class
  end
end
for i = 2, #ARGV do list(ARGV[i]) end
if mark then
  for _, class in ipairs(call('HKEYS', marked)) do list(class) end
end
if #classes == 0 then return {} end

-- Returns the tags of a class, and the memory (MiB) and CPU (thousandths of a core) of each of its
-- jobs, unless these are the default size.
local function parts_of(class)
  local tags, memory, cpu = string.match(class, '^(.-)~m(%d+)c(%d+)$')
  return tags or class, tonumber(memory), tonumber(cpu)
end

-- The offers of live workers, each distinct one once, because many workers offer the same.
local offers, known = {}, {}
for _, worker in ipairs(call('ZRANGE', P .. 'workers', 0, -1)) do
  local facts = call('HMGET', P .. 'worker:' .. worker, 'labels', 'draining', 'largest')
  local offer = facts[1] and facts[1] .. '~' .. (facts[3] or '')
  if offer and facts[2] ~= '1' and not known[offer] then
    known[offer] = true
    local tags, _, memory, cpu = {}, parts_of(offer)
    for tag in string.gmatch(facts[1], '[^+]+') do tags[tag] = true end
    offers[#offers + 1] = { tags = tags, memory = memory or math.huge, cpu = cpu or math.huge }
  end
end

-- Returns the thing that every live worker lacks for a class, tags or room; nil if a worker lacks
-- nothing. Jobs of the default size fit every worker.
local function lack_of(class)
  local wanted, memory, cpu = parts_of(class)
  local lack = 'tags'
  for _, offer in ipairs(offers) do
    local covers = true
    for tag in string.gmatch(wanted, '[^+]+') do covers = covers and offer.tags[tag] end
    if covers and (memory or 0) <= offer.memory and (cpu or 0) <= offer.cpu then return nil end
    if covers then lack = 'room' end
  end
  return lack
end

-- Returns the number of ready jobs of a class. One call counts a limited number of tenants, so that
-- it does not block Redis for long; beyond them the number is a lower bound.
local tenants_left = 1000
local function count_ready(class)
  local jobs = 0
  local tenants = call('ZRANGE', P .. 'fair:' .. class, 0, math.max(tenants_left, 1) - 1)
  tenants_left = tenants_left - #tenants
  for _, tenant in ipairs(tenants) do
    jobs = jobs + call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
  end
  return jobs
end

-- Writes an event of a class, which has no job and no tenant.
local function add_class_event(name, class, more)
  add_event(name, '-', { class = class, tenant = '-' }, more)
end

local EXPIRED_PER_CALL = 64 -- jobs of one class

-- Expires ready jobs of a class that no worker has served for long.
local function expire_all(class)
  local budget = EXPIRED_PER_CALL
  local message = string.format('no live worker served class "%s" for %.0f hours', class,
    UNROUTABLE_LIFE_MS / 3600000)
  for _, tenant in ipairs(call('ZRANGE', P .. 'fair:' .. class, 0, budget - 1)) do
    if budget <= 0 then return end
    for _, id in ipairs(call('ZRANGE', P .. 'ready:' .. class .. ':' .. tenant, 0, budget - 1)) do
      budget = budget - 1
      local job = load_job(id)
      if job and job.state == 'queued' then
        remove_ready(id, job)
        end_job(id, job, 'finished', 'expired',
          queue_result(id, job, 'expired', 'unroutable', message), message)
      end
    end
  end
end

local reply = {}
if mark then allow_when_full() end
for _, class in ipairs(classes) do
  local lack = lack_of(class)
  local jobs = lack and count_ready(class) or 0
  local since = call('HGET', marked, class)
  if jobs > 0 then
    if mark and not since then
      since = NOW
      call('HSET', marked, class, since)
      add_class_event('unroutable', class, ' jobs ' .. jobs .. ' lack ' .. lack)
    end
    if mark and NOW - since > UNROUTABLE_LIFE_MS then expire_all(class) end
    reply[#reply + 1] = class
    reply[#reply + 1] = jobs
    reply[#reply + 1] = lack
    reply[#reply + 1] = since
  elseif mark and since then
    call('HDEL', marked, class)
    add_class_event('routable', class, string.format(' after_ms %.0f', NOW - since))
  end
end
flush()
return reply
