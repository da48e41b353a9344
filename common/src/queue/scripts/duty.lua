-- Chooses the worker that does the next round of a namespace's maintenance.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker
-- ARGV[2]  period of the rounds (ms)
-- ARGV[3]  lease (ms)
-- ARGV[4]  take, now (take the round even if the last one was less than a period ago) or leave
--          (take it only if there is no other worker)
-- Result   five numbers: 1 if the worker is on the crew (else 0); 1 if it must do a round now; 1 if
--          that round includes the check for unroutable work; 1 if it includes a sweep; and how
--          long no lease is taken back (ms)
--
-- All workers of a namespace share one round in each period. Only a few workers, the set `crew`,
-- ask once in a period. The others ask from time to time whether a place on the crew is free; a
-- place becomes free when its member has not asked for some periods. The first member that asks
-- after the time of the last round takes the next one, so a dead member is replaced within a
-- period. The key `upkeep:turn` lasts for the time of a round.
--
-- This script uses nothing of the prelude.

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

-- Three quarters of the period, because every worker's period varies by a quarter.
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
