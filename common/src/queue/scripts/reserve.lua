-- A worker that lacks room for a class it serves asks for which of its classes it should keep room.
--
-- ARGV     worker, how long a job may be passed over (ms), how long the answer holds (ms), then all classes it serves
-- Replies  the class, or false
--
-- That is the class whose next job has waited longest of all these, when it has waited long enough: then jobs that
-- became ready later have been started before it. A ticket's id says when its job became ready, and one that nobody has
-- read yet is a job that nobody has taken. There are no more workers that keep room for a class than it has such jobs:
-- `reserved:<class>` has them, and forgets a worker that does not ask again in time.

local worker, after, life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local SEEN = 64

-- The id of the last ticket of a class that anybody has read.
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
    waits[#waits + 1] = { class = ARGV[i], last = last, since = tonumber(string.match(next[1], '^%d+')) }
  end
end
table.sort(waits, function(a, b) return a.since < b.since end)

for _, one in ipairs(waits) do
  if NOW - one.since < after then return false end
  -- Jobs whose tenants may not start one are not passed over.
  local _, startable = waiting(one.class)
  if startable > 0 then
    local old = call('XRANGE', P .. 'tickets:' .. one.class, '(' .. one.last, string.format('%.0f', NOW - after),
      'COUNT', SEEN)
    local key = P .. 'reserved:' .. one.class
    call('ZREMRANGEBYSCORE', key, '-inf', NOW_TEXT)
    if not call('ZSCORE', key, worker) and call('ZCARD', key) >= math.min(#old, startable) then return false end
    call('ZADD', key, NOW + life, worker)
    call('PEXPIRE', key, life)
    return one.class
  end
end
return false
