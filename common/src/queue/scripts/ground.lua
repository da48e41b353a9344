-- Put before every script when the program is built: the values that all of them share.
--
-- KEYS[1]  the namespace's prefix, "sandhog:{namespace}:". Every key is made from it, so all share one hash tag.
--
-- Time is Redis' own. What comes behind stands in a function of its own: Lua finds a value that a function takes from
-- around it by walking along all that are taken already, and the ones here, which nearly all functions take, would be
-- the farthest. From around that function they are had at once, which saves about a sixth of what building them costs.

local P = KEYS[1]
local call = redis.call
local clock = call('TIME')
local NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
-- As text once: Lua and Redis would print the number anew, as a float, wherever it is used.
local NOW_TEXT = string.format('%.0f', NOW)

local ADMIT_GROUP = 'admit'
local WORKER_GROUP = 'workers'
local CREDIT_MS = 60000         -- how much later a job one priority level higher may come and still go first
local EVENTS_KEPT = 50000       -- entries, of one event to EVENTS_TOGETHER
local EVENTS_TOGETHER = 8
local DEAD_KEPT = 10000
local DEAD_SHARE = 1000         -- dead letters of one tenant that no other letter displaces
local DEAD_MARGIN = 200         -- how many letters before DEAD_KEPT shares begin to count
local LETTERS_LIFE_MS = 2592000000
local CONTROL_KEPT = 1000
local REPLIES_KEPT = 10000
local LOG_ENTRIES_KEPT = 10000
local CLASSES_MOST = 1000       -- each is a stream, and a share of every round of upkeep
local CLASSES_EACH = 250        -- classes of those that the jobs of one tenant may bring into use
local UNROUTABLE_LIFE_MS = 604800000 -- how long jobs wait that no live worker serves
local CLASS_LIFE_MS = 3600000   -- how long a class is remembered after its last ticket
local LOG_LIFE_MS = 3600000     -- how long a running job's log outlives its last chunk, at least
local DEBTS_KEPT = 256          -- tenants whose place in a class' fair order is kept after they left it
local DEBT_LIFE_MS = 60000      -- and how long
local CLAIM_LIFE_MS = 60000     -- how long a worker may ask again for what it claimed
local KEEP_LEAST_MS = 1000      -- a result kept for no time at all would be gone before its waiter reads it
