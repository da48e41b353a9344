-- Library: counters and events, and the order of a script's writes.
--
-- This file is put after ready_set.lua, before every script that uses the library. It takes no
-- arguments.
--
-- At maxmemory, Redis rejects a script if its first write needs memory; it does not check the later
-- writes. So every script that must work on a full Redis begins with a write that frees memory
-- (XACK, ZREM, HDEL).
--
-- The cost of a script is mostly the number of its commands. So the writes that many jobs of one
-- call have in common are collected, and flush() writes them at once. Every script that changes
-- anything calls flush() last.

-- Does a write that changes nothing and that Redis allows at maxmemory, so that Redis also allows
-- the later writes.
local function allow_when_full()
  call('HDEL', P .. 'stats', '')
end

-- Counters of the namespace, by name, with the numbers that flush() adds to them.
local counts = {}
local function count(name)
  counts[name] = (counts[name] or 0) + 1
end

-- Events for dashboards and exporters. Each field of a stream entry is one event: the field's name
-- is the event's name, and its value is a list of names and values, separated by spaces.
local events = {}
local function add_event(name, id, job, more)
  events[#events + 1] = name
  events[#events + 1] = 'id ' .. id .. ' class ' .. job.class .. ' tenant ' .. job.tenant
    .. (more or '')
end

-- Writes all collected changes. A script calls it last.
local function flush()
  flush_ready()
  for name, times in pairs(counts) do
    call('HINCRBY', P .. 'stats', name, times)
  end
  counts = {}
  for i = 1, #events, 2 * EVENTS_PER_ENTRY do
    call('XADD', P .. 'events', 'MAXLEN', '~', EVENTS_KEPT, '*',
      unpack(events, i, math.min(i + 2 * EVENTS_PER_ENTRY - 1, #events)))
  end
  events = {}
end
