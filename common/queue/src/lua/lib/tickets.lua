-- Library: classes and their tickets, which are entries of the stream `tickets:<class>`.
--
-- This file is put after job.lua, before every script that uses the library. It takes no arguments.

-- Notifies all workers that a class came into use or was forgotten.
local function announce_class(class)
  call('XADD', P .. 'control', 'MAXLEN', '~', CONTROL_KEPT, '*', 'op', 'class', 'class', class)
end

-- Issues this many tickets for a class. If the class is new, creates its stream and group and
-- notifies the workers.
local function issue_tickets(class, tickets)
  local stream = P .. 'tickets:' .. class
  if call('SADD', P .. 'classes', class) == 1 then
    redis.pcall('XGROUP', 'CREATE', stream, WORKER_GROUP, '0', 'MKSTREAM')
    announce_class(class)
  end
  for _ = 1, tickets do call('XADD', stream, '*', 't', '1') end
end

-- Returns the stream id after the latest of these ids; nil if one of them does not fit Lua's
-- numbers.
local function id_after_all(ids)
  local last_ms, last_seq = -1, -1
  for _, id in ipairs(ids) do
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    if #ms > 15 or #seq > 15 then return nil end
    ms, seq = tonumber(ms), tonumber(seq)
    if ms > last_ms or (ms == last_ms and seq > last_seq) then last_ms, last_seq = ms, seq end
  end
  return string.format('%.0f-%.0f', last_ms, last_seq + 1)
end

-- Acknowledges entries. If all of them were pending, also deletes them and returns true. Both are
-- one step, because an entry that is only acknowledged stays in the stream.
--
-- XDEL searches for each entry from the beginning of its node. If no entry up to the last one is
-- pending any more, all entries up to it were delivered and are settled, and trimming the stream up
-- to it takes one pass.
local function remove_entries(stream, group, ids)
  if call('XACK', stream, group, unpack(ids)) < #ids then return false end
  local after = #ids > 2 and id_after_all(ids)
  if after and #call('XPENDING', stream, group, '-', after, 1) == 0 then
    call('XTRIM', stream, 'MINID', '=', after)
  else
    call('XDEL', stream, unpack(ids))
  end
  return true
end

-- Deletes tickets, pending or not.
local function delete_tickets(class, tickets)
  local stream = P .. 'tickets:' .. class
  if #tickets > 0 and not remove_entries(stream, WORKER_GROUP, tickets) then
    call('XDEL', stream, unpack(tickets))
  end
end

-- Returns the worker that has a ticket pending, and for how long (ms); nil if no worker has.
local function ticket_holder(class, ticket)
  local pending = redis.pcall('XPENDING', P .. 'tickets:' .. class, WORKER_GROUP, ticket, ticket, 1)
  if pending.err or #pending == 0 then return nil end
  return pending[1][2], pending[1][3]
end
