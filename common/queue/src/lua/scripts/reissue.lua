-- Replaces tickets that a worker read and will not bind with fresh ones.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker
-- then for each ticket:
--   ARGV[n]    class
--   ARGV[n+1]  ticket
-- Result   number of replaced tickets
--
-- A fresh entry is needed because a pending entry cannot be given back to its group. Bound tickets
-- are leases and stay.

local worker = ARGV[1]
local replaced = 0
for i = 2, #ARGV, 2 do
  local class, ticket = ARGV[i], ARGV[i + 1]
  if call('HEXISTS', P .. 'bound:' .. class, ticket) == 0
    and ticket_holder(class, ticket) == worker then
    delete_tickets(class, { ticket })
    issue_tickets(class, 1)
    replaced = replaced + 1
  end
end
return replaced
