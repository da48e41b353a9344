-- Binds a worker's tickets of one class to the best ready jobs of that class, and so makes leases.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker
-- ARGV[2]  class
-- ARGV[3]  first ticket; further tickets follow
-- Result   for each ticket:
--          {'nothing'}: the ticket is deleted, or was not this worker's
--          {'again'}: many jobs were expired on the way; call again
--          {'bound', id, payload, spec, attempts, lost, start time of the attempt (ms), time at
--           which the job became ready (ms; false: at its submission), 1 if a cancel was requested
--           (else 0)}
--
-- The lease time of a ticket that was read long ago starts anew.

local worker, class = ARGV[1], ARGV[2]
local tickets = { unpack(ARGV, 3) }
local FRESH_MS = 500
local stream = P .. 'tickets:' .. class

-- Idle time of this worker's pending tickets. Tickets that were read together are next to each
-- other in the pending list of their reader, so one command usually finds all of them.
local pending = {}
for _, one in ipairs(redis.pcall('XPENDING', stream, WORKER_GROUP,
  tickets[1], tickets[#tickets], #tickets, worker)) do
  pending[one[1]] = one[3]
end
local function idle(ticket)
  if pending[ticket] then return pending[ticket] end
  local who, time = holder(class, ticket)
  if who == worker then return time end
end

local replies, unbound, places, stale, asked = {}, {}, {}, {}, {}
local before = call('HMGET', P .. 'bound:' .. class, unpack(tickets))
for i, ticket in ipairs(tickets) do
  replies[i] = { 'nothing' }
  local id = leased(before[i])
  if id then
    local job = load(id)
    if held(id, job, ticket, worker, before[i]) then
      replies[i] = reply(id, read(id), job.attempts, job.started_at)
    end
  elseif not asked[ticket] then
    local time = idle(ticket)
    if time then
      unbound[#unbound + 1] = ticket
      places[#places + 1] = i
    end
    if time and time > FRESH_MS then stale[#stale + 1] = ticket end
  end
  asked[ticket] = true
end

if #stale > 0 then call('XCLAIM', stream, WORKER_GROUP, worker, 0, unpack(stale), 'JUSTID') end
if #unbound > 0 then
  for i, answer in ipairs(bind(worker, class, unbound)) do replies[places[i]] = answer end
end
flush()
return replies
