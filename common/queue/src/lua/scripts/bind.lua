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
for _, entry in ipairs(redis.pcall('XPENDING', stream, WORKER_GROUP,
  tickets[1], tickets[#tickets], #tickets, worker)) do
  pending[entry[1]] = entry[3]
end
local function idle_ms(ticket)
  if pending[ticket] then return pending[ticket] end
  local consumer, idle = ticket_holder(class, ticket)
  if consumer == worker then return idle end
end

local replies, unbound, positions, stale, seen = {}, {}, {}, {}, {}
local bound = call('HMGET', P .. 'bound:' .. class, unpack(tickets))
for i, ticket in ipairs(tickets) do
  replies[i] = { 'nothing' }
  local id = leased_id(bound[i])
  if id then
    local job = load_job(id)
    if is_held(id, job, ticket, worker, bound[i]) then
      replies[i] = bound_reply(id, read_job(id), job.attempts, job.started_at)
    end
  elseif not seen[ticket] then
    local idle = idle_ms(ticket)
    if idle then
      unbound[#unbound + 1] = ticket
      positions[#positions + 1] = i
    end
    if idle and idle > FRESH_MS then stale[#stale + 1] = ticket end
  end
  seen[ticket] = true
end

if #stale > 0 then call('XCLAIM', stream, WORKER_GROUP, worker, 0, unpack(stale), 'JUSTID') end
if #unbound > 0 then
  for i, answer in ipairs(bind_tickets(worker, class, unbound)) do
    replies[positions[i]] = answer
  end
end
flush()
return replies
