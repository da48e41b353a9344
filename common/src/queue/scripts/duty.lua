-- Decides which worker does the next round of a namespace's upkeep.
--
-- ARGV     worker, period of upkeep (ms), lease (ms), and take, now (take the round though the last
-- one
--          was less than a period ago) or leave (take it only when there is no other worker)
-- Replies  1 when the worker is in the crew, 1 when it is to do a round now, 1 when that round is
-- to look
--          for unroutable work, 1 when it is to sweep, and how long no lease is taken back (ms)
--
-- All workers of a namespace share one round in a period. A crew of few, `crew`, asks once in a
-- period; the others ask now and then whether a place in the crew is free, which it is when a
-- member has not asked for some periods. The first to ask after the last round's time takes the
-- next one, so a member that dies is followed by another within a period. `upkeep:turn` is the time
-- of a round.
--
-- It needs nothing of the prelude.

local worker, period, lease, how = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local CREW = 3
local SILENT_PERIODS = 4
local LOOK_MS, SWEEP_MS = 4000, 10000
local PAUSE_LEAST_MS = 1500 -- as in tick.lua

local crew = P .. 'crew'
call('ZREMRANGEBYSCORE', crew, '-inf', NOW - SILENT_PERIODS * period)
local on_crew = false
if how == 'leave' then
  call('ZREM', crew, worker)
elseif call('ZSCORE', crew, worker) or call('ZCARD', crew) < CREW then
  call('ZADD', crew, NOW, worker)
  call('PEXPIRE', crew, 2 * SILENT_PERIODS * period)
  on_crew = true
end

-- Returns whether this is the first call for a key within a time.
local function is_first(key, ms)
  return call('SET', P .. key, worker, 'NX', 'PX', ms) and true
end

-- Three quarters, because every worker's period varies by a quarter.
local hold = math.floor(period * 0.75)
local due = false
if how == 'now' and on_crew then
  call('SET', P .. 'upkeep:turn', worker, 'PX', hold)
  due = true
elseif on_crew or call('EXISTS', crew) == 0 then
  due = is_first('upkeep:turn', hold)
end

local last, till = string.match(call('GET', P .. 'upkeep') or '', '^(%d+) (%d+)$')
last, till = tonumber(last) or NOW, tonumber(till) or 0
local patient = math.max(till - NOW, 0)
if NOW - last > math.max(lease / 3, PAUSE_LEAST_MS) then patient = lease end

return {
  on_crew and 1 or 0, due and 1 or 0, due and is_first('upkeep:look', LOOK_MS) and 1 or 0,
  due and is_first('upkeep:sweep', SWEEP_MS) and 1 or 0, math.floor(patient),
}
