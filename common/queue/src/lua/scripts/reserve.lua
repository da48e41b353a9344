-- Chooses the class for which a worker should reserve capacity, if any.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker, which lacks capacity for a job of a class that it serves
-- ARGV[2]  how long a job may be passed over (ms)
-- ARGV[3]  how long the reservation lasts (ms)
-- ARGV[4]  first class; all classes that the worker serves follow
-- Result   the class, or false
--
-- The result is the class whose next job has waited longest, if it has waited longer than ARGV[2]:
-- then jobs that became ready later have been started before it. The id of a ticket is the time at
-- which its job became ready, and no worker has taken the job of an unread ticket. The number of
-- workers that reserve capacity for a class is at most the number of such jobs. `reserved:<class>`
-- holds these workers; a worker that does not call again in time is removed.

local worker, passed_over_ms, life_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local TICKET_WINDOW = 64

-- Returns the id of the last ticket of a class that a worker has read; nil if there is no such
-- class.
local function last_read(class)
  local groups = redis.pcall('XINFO', 'GROUPS', P .. 'tickets:' .. class)
  for _, flat in ipairs(groups.err and {} or groups) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    if group.name == WORKER_GROUP then return group['last-delivered-id'] end
  end
end

local waiting_classes = {}
for i = 4, #ARGV do
  local class = ARGV[i]
  local last = last_read(class)
  local next = last and call('XRANGE', P .. 'tickets:' .. class, '(' .. last, '+', 'COUNT', 1)[1]
  if next then
    waiting_classes[#waiting_classes + 1] = {
      class = class, last = last, since = tonumber(string.match(next[1], '^%d+'))
    }
  end
end
table.sort(waiting_classes, function(a, b) return a.since < b.since end)

for _, waiting in ipairs(waiting_classes) do
  if NOW - waiting.since < passed_over_ms then return false end
  -- Jobs whose tenants may not start one do not count as passed over.
  local _, startable = ready_counts(waiting.class)
  if startable > 0 then
    local old = call('XRANGE', P .. 'tickets:' .. waiting.class, '(' .. waiting.last,
      string.format('%.0f', NOW - passed_over_ms), 'COUNT', TICKET_WINDOW)
    local key = P .. 'reserved:' .. waiting.class
    call('ZREMRANGEBYSCORE', key, '-inf', NOW_TEXT)
    if not call('ZSCORE', key, worker) and call('ZCARD', key) >= math.min(#old, startable) then
      return false
    end
    call('ZADD', key, NOW + life_ms, worker)
    call('PEXPIRE', key, life_ms)
    return waiting.class
  end
end
return false
