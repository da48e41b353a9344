-- Finds classes with ready jobs that no live worker serves.
--
-- ARGV     mark or look, then classes to look at; with mark also those that were unroutable before
-- Replies  for each class that is unroutable: class, ready jobs, what live workers lack (tags or room), since when
--          (ms), or false when nobody has marked it
--
-- With mark a spell begins and ends with an event, once for all who look, and the jobs of a class
-- that has been unroutable for long expire, so that no submitter can fill the queue with work that
-- is never done.

local mark = ARGV[1] == 'mark'
local spells = P .. 'unroutable'

local classes, listed = {}, {}
local function list(class)
  if not listed[class] then
    listed[class] = true
    classes[#classes + 1] = class
  end
end
for i = 2, #ARGV do list(ARGV[i]) end
if mark then
  for _, class in ipairs(call('HKEYS', spells)) do list(class) end
end
if #classes == 0 then return {} end

-- Of a class: its tags, and the memory and CPU each of its jobs takes, unless that is the ordinary amount.
local function parts(class)
  local tags, memory, cpu = string.match(class, '^(.-)~m(%d+)c(%d+)$')
  return tags or class, tonumber(memory), tonumber(cpu)
end

-- What live workers offer, each set once: many workers offer the same.
local offers, known = {}, {}
for _, worker in ipairs(call('ZRANGE', P .. 'workers', 0, -1)) do
  local said = call('HMGET', P .. 'worker:' .. worker, 'labels', 'draining', 'largest')
  local offer = said[1] and said[1] .. '~' .. (said[3] or '')
  if offer and said[2] ~= '1' and not known[offer] then
    known[offer] = true
    local tags, _, memory, cpu = {}, parts(offer)
    for tag in string.gmatch(said[1], '[^+]+') do tags[tag] = true end
    offers[#offers + 1] = { tags = tags, memory = memory or math.huge, cpu = cpu or math.huge }
  end
end

-- What every live worker lacks for a class; nil when one lacks nothing. Ordinary jobs fit any.
local function lack(class)
  local wanted, memory, cpu = parts(class)
  local lacks = 'tags'
  for _, offer in ipairs(offers) do
    local covers = true
    for tag in string.gmatch(wanted, '[^+]+') do covers = covers and offer.tags[tag] end
    if covers and (memory or 0) <= offer.memory and (cpu or 0) <= offer.cpu then return nil end
    if covers then lacks = 'room' end
  end
  return lacks
end

-- How many jobs are ready, or at least how many of some tenants: of so many in one call that it does not hold Redis up.
local left = 1000
local function ready(class)
  local jobs = 0
  local tenants = call('ZRANGE', P .. 'fair:' .. class, 0, math.max(left, 1) - 1)
  left = left - #tenants
  for _, tenant in ipairs(tenants) do
    jobs = jobs + call('ZCARD', P .. 'ready:' .. class .. ':' .. tenant)
  end
  return jobs
end

-- No job and no tenant has to do with it.
local function tell(name, class, more)
  event(name, '-', { class = class, tenant = '-' }, more)
end

local EXPIRED_TOGETHER = 64 -- jobs of one class in one call

-- Ends ready jobs of a class that no worker has served for long.
local function expire_all(class)
  local budget = EXPIRED_TOGETHER
  local message = string.format('no live worker served class "%s" for %.0f hours', class, UNROUTABLE_LIFE_MS / 3600000)
  for _, tenant in ipairs(call('ZRANGE', P .. 'fair:' .. class, 0, budget - 1)) do
    if budget <= 0 then return end
    for _, id in ipairs(call('ZRANGE', P .. 'ready:' .. class .. ':' .. tenant, 0, budget - 1)) do
      budget = budget - 1
      local job = load(id)
      if job and job.state == 'queued' then
        unready(id, job)
        close(id, job, 'finished', 'expired', our_result(id, job, 'expired', 'unroutable', message), message)
      end
    end
  end
end

local reply = {}
if mark then allow_when_full() end
for _, class in ipairs(classes) do
  local lacks = lack(class)
  local jobs = lacks and ready(class) or 0
  local since = call('HGET', spells, class)
  if jobs > 0 then
    if mark and not since then
      since = NOW
      call('HSET', spells, class, since)
      tell('unroutable', class, ' jobs ' .. jobs .. ' lack ' .. lacks)
    end
    if mark and NOW - since > UNROUTABLE_LIFE_MS then expire_all(class) end
    reply[#reply + 1] = class
    reply[#reply + 1] = jobs
    reply[#reply + 1] = lacks
    reply[#reply + 1] = since
  elseif mark and since then
    call('HDEL', spells, class)
    tell('routable', class, string.format(' after_ms %.0f', NOW - since))
  end
end
flush()
return reply
