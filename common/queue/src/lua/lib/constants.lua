-- Library: constants and values that all scripts share.
--
-- KEYS[1]  key prefix of the namespace, "sandhog:{namespace}:". Every key is made from it, so that
--          all keys share one hash tag.
--
-- This file is put before every script when the program is built (see script.rs). It takes no
-- arguments.
--
-- The time is that of Redis. The rest of the script runs in one nested function. Lua resolves
-- upvalues by linear search; nesting keeps these constants near the front of the list and makes
-- building the helper functions about a sixth cheaper.

local P = KEYS[1] -- short, because every key of every command is made from it
local call = redis.call
local clock = call('TIME')
local NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
-- Formatted once: Lua and Redis would format the number at each use, and as a float.
local NOW_TEXT = string.format('%.0f', NOW)

local ADMIT_GROUP = 'admit'
local WORKER_GROUP = 'workers'
-- A job of the next higher priority level goes first even if it comes this much later.
local CREDIT_MS = 60000
-- Stream entries, each of up to EVENTS_PER_ENTRY events.
local EVENTS_KEPT = 50000
local EVENTS_PER_ENTRY = 8
local LETTERS_KEPT = 10000
local LETTERS_PER_SHARE = 1000  -- dead letters of one tenant that no other letter displaces
local LETTERS_MARGIN = 200      -- shares are enforced when only this many letters more fit
local LETTER_LIST_LIFE_MS = 2592000000
local CONTROL_KEPT = 1000
local REPLIES_KEPT = 10000
local LOG_ENTRIES_KEPT = 10000
local CLASS_LIMIT = 1000        -- each is a stream, and adds to the cost of every maintenance round
local CLASS_LIMIT_PER_TENANT = 250 -- classes that the jobs of one tenant may bring into use
local UNROUTABLE_LIFE_MS = 604800000 -- how long jobs wait that no live worker serves
local CLASS_LIFE_MS = 3600000   -- how long a class is remembered after its last ticket
local LOG_LIFE_MS = 3600000     -- how long a running job's log outlives its last chunk, at least
-- Tenants whose place in the fair order of a class is remembered after they left it, and how long.
local FAIR_POSITIONS_KEPT = 256
local FAIR_POSITION_LIFE_MS = 60000
local CLAIM_LIFE_MS = 60000     -- how long a worker may repeat the call that claimed jobs
-- The least retention of a result: with none, it would be gone before its waiter reads it.
local RETENTION_MIN_MS = 1000
