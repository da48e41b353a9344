-- Replaces tickets that a worker read and will not bind by fresh ones.
--
-- ARGV     worker, then for each ticket: class, ticket
-- Replies  how many were replaced
--
-- A fresh entry, because a pending one cannot be handed back to its group. Bound tickets are leases and stay.

local worker = ARGV[1]
local replaced = 0
for i = 2, #ARGV, 2 do
  local class, ticket = ARGV[i], ARGV[i + 1]
  if call('HEXISTS', P .. 'bound:' .. class, ticket) == 0 and holder(class, ticket) == worker then
    destroy(class, { ticket })
    issue(class, 1)
    replaced = replaced + 1
  end
end
return replaced
