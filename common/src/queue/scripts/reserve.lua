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

local worker, after, life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local SEEN = 64

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

local waits = {}
for i = 4, #ARGV do
  local last = last_read(ARGV[i])
  local next = last and call('XRANGE', P .. 'tickets:' .. ARGV[i], '(' .. last, '+', 'COUNT', 1)[1]
  if next then
    waits[#waits + 1] = {
      class = ARGV[i], last = last, since = tonumber(string.match(next[1], '^%d+'))
    }
  end
end
table.sort(waits, function(a, b) return a.since < b.since end)

for _, one in ipairs(waits) do
  if NOW - one.since < after then return false end
  -- Jobs whose tenants may not start one do not count as passed over.
  local _, startable = waiting(one.class)
  if startable > 0 then
    local old = call('XRANGE', P .. 'tickets:' .. one.class, '(' .. one.last,
      string.format('%.0f', NOW - after), 'COUNT', SEEN)
    local key = P .. 'reserved:' .. one.class
    call('ZREMRANGEBYSCORE', key, '-inf', NOW_TEXT)
    if not call('ZSCORE', key, worker) and call('ZCARD', key) >= math.min(#old, startable) then
      return false
    end
    call('ZADD', key, NOW + life, worker)
    call('PEXPIRE', key, life)
    return one.class
  end
end
return false
