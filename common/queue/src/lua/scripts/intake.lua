-- Delivers entries of the public intake to an admitter, with a limit on their bytes.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker
-- ARGV[2]  maximum number of entries
-- ARGV[3]  maximum bytes of all entries together
-- ARGV[4]  maximum bytes of one entry
-- ARGV[5]  id of the last entry that this reader received, '' in its first call
-- ARGV[6]  1 to read new entries (else 0)
-- ARGV[7]  how long an entry must have been pending to be taken over from its consumer (ms), '' to
--          take over none
-- Result   for each entry: entry id, number of deliveries to admitters, its bytes, and its fields
--
-- Of an entry above the maximum, only the fields are returned that its rejection needs: its id and
-- its reply stream, if they are short, and the first byte of its job. So a client that may only
-- XADD cannot make a worker read more than it has memory for, however large the entries are that
-- Redis accepts. Entries are read one by one: a larger COUNT would put that many large entries in
-- memory together.
--
-- This script uses nothing of the library except constants.lua.

local worker, limit, batch_bytes, entry_bytes =
  ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local last, take_new, abandoned = ARGV[5], ARGV[6] == '1', ARGV[7]
local jobs = P .. 'jobs'
local FIELD_BYTES = 64        -- added for each field, for its overhead
local NAME_BYTES = 128        -- bytes of the longest name
local GARBAGE_BYTES = 1048576 -- a larger entry is garbage collected at once

local SHORT_STREAM = 4        -- a stream of at most this length is read entry by entry
local COUNTED_NODES = 512     -- nodes of the stream whose bytes are counted
local NODE_ENTRIES = 100      -- the most entries of one node: stream-node-max-entries
local SMALL_BYTES = 67108864

local reply, delivered_ids, bytes, entries_left = {}, {}, 0, limit

-- Returns the fields that the rejection of an entry that is too large needs.
local function excerpt(fields)
  local short = {}
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if (name == 'id' or name == 'reply') and #value <= NAME_BYTES and not short[name] then
      short[name] = value
    elseif name == 'job' and not short.job then
      short.job = string.sub(value, 1, 1)
    end
  end
  local kept = {}
  for name, value in pairs(short) do
    kept[#kept + 1] = name
    kept[#kept + 1] = value
  end
  return kept
end

-- Adds an entry to the answer.
local function deliver(entry, deliveries)
  local id, fields = entry[1], entry[2]
  local size = #fields / 2 * FIELD_BYTES
  for i = 1, #fields do size = size + #fields[i] end
  if size > entry_bytes then fields = excerpt(fields) end
  bytes = bytes + size
  entries_left = entries_left - 1
  delivered_ids[id] = true
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = id, deliveries, size, fields
  if size > GARBAGE_BYTES then
    entry[2] = nil
    collectgarbage()
  end
end

local function is_full()
  return entries_left <= 0 or bytes >= batch_bytes
end

-- Adds a pending entry to the answer. If it is `redelivered`, it was delivered to another admitter
-- before, perhaps to a process of the same name that crashed because of it. Redis counts these
-- deliveries.
local function deliver_pending(pending, idle, redelivered)
  local id, delivered = pending[1], pending[4]
  if delivered_ids[id] then return end
  if redelivered then
    delivered = delivered + 1
    local claimed = call('XCLAIM', jobs, ADMIT_GROUP, worker, idle, id, 'RETRYCOUNT', delivered,
      'JUSTID')
    if #claimed == 0 then return end
  end
  local found = call('XRANGE', jobs, id, id)
  if found[1] then
    deliver(found[1], delivered)
  else
    -- The entry was deleted by hand.
    call('XACK', jobs, ADMIT_GROUP, id)
  end
end

local function deliver_all_pending(list, idle, redelivered)
  for _, pending in ipairs(list) do
    if is_full() then return end
    deliver_pending(pending, idle, redelivered)
  end
end

-- Returns whether the next entries are known to be small together, so that one read may take them
-- all. MEMORY USAGE counts the bytes of the first COUNTED_NODES nodes of the stream and assumes the
-- same size for the others. Settled entries are deleted, so the next entries are in these nodes
-- unless too many entries before them are pending.
local function are_small()
  local length = call('XLEN', jobs)
  if length <= SHORT_STREAM then return false end
  local pending = math.huge
  for _, flat in ipairs(call('XINFO', 'GROUPS', jobs)) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    if group.name == ADMIT_GROUP then pending = group.pending end
  end
  if pending + entries_left > COUNTED_NODES then return false end
  local all = call('MEMORY', 'USAGE', jobs, 'SAMPLES', COUNTED_NODES)
  local nodes_least = math.max(length / NODE_ENTRIES - 1, 1)
  return math.min(all, all * COUNTED_NODES / nodes_least) <= SMALL_BYTES
end

-- New entries that a wait has already delivered to this reader, without their fields.
local delivered = redis.pcall('XPENDING', jobs, ADMIT_GROUP,
  last == '' and '-' or '(' .. last, '+', limit, worker)
if delivered.err then
  if not string.find(delivered.err, 'NOGROUP', 1, true) then return delivered end
  call('XGROUP', 'CREATE', jobs, ADMIT_GROUP, '0', 'MKSTREAM')
elseif take_new then
  deliver_all_pending(delivered, 0, last == '')
end
if abandoned ~= '' and not is_full() then
  deliver_all_pending(
    call('XPENDING', jobs, ADMIT_GROUP, 'IDLE', abandoned, '-', '+', entries_left),
    abandoned, true)
end
if take_new and not is_full() and are_small() then
  -- Entries that do not fit in this answer stay pending, and the next call returns them.
  local read = call('XREADGROUP', 'GROUP', ADMIT_GROUP, worker, 'COUNT', entries_left,
    'STREAMS', jobs, '>')
  for _, entry in ipairs(read and read[1][2] or {}) do
    if is_full() then break end
    deliver(entry, 1)
  end
end
while take_new and not is_full() do
  local read = call('XREADGROUP', 'GROUP', ADMIT_GROUP, worker, 'COUNT', 1, 'STREAMS', jobs, '>')
  if not read then break end
  deliver(read[1][2][1], 1)
end
return reply
