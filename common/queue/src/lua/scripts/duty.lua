-- Chooses the worker that does the next round of a namespace's maintenance.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  worker
-- ARGV[2]  period of the rounds (ms)
-- ARGV[3]  lease (ms)
-- ARGV[4]  take, now (take the round even if the last one was less than a period ago) or leave
--          (take it only if there is no other worker)
-- Result   five numbers: 1 if the worker is a candidate for the rounds (else 0); 1 if it must do a
--          round now; 1 if that round includes the check for unroutable work; 1 if it includes a
--          sweep; and how long no lease is taken back (ms)
--
-- All workers of a namespace share one round in each period. Only a few workers, the candidates,
-- ask once in a period; they are in the sorted set `crew`. The others ask from time to time whether
-- they can become a candidate; a candidate that has not asked for some periods is removed. The
-- first candidate that asks after the time of the last round takes the next one, so a dead
-- candidate is replaced within a period. The key `upkeep:turn` lasts for the time of a round.
--
-- This script uses nothing of the library except constants.lua.

local worker, period, lease, request = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local CANDIDATE_LIMIT = 3
local SILENT_PERIODS = 4
local ROUTING_CHECK_MS, SWEEP_MS = 4000, 10000
local PAUSE_MIN_MS = 1500 -- as in tick.lua

local candidates = P .. 'crew'
call('ZREMRANGEBYSCORE', candidates, '-inf', NOW - SILENT_PERIODS * period)
local is_candidate = false
if request == 'leave' then
  call('ZREM', candidates, worker)
elseif call('ZSCORE', candidates, worker) or call('ZCARD', candidates) < CANDIDATE_LIMIT then
  call('ZADD', candidates, NOW, worker)
  call('PEXPIRE', candidates, 2 * SILENT_PERIODS * period)
  is_candidate = true
end

-- Returns whether this is the first call for a key within a time.
local function is_first(key, ms)
  return call('SET', P .. key, worker, 'NX', 'PX', ms) and true
end

-- Three quarters of the period, because every worker's period varies by a quarter.
local turn_ms = math.floor(period * 0.75)
local due = false
if request == 'now' and is_candidate then
  call('SET', P .. 'upkeep:turn', worker, 'PX', turn_ms)
  due = true
elseif is_candidate or call('EXISTS', candidates) == 0 then
  due = is_first('upkeep:turn', turn_ms)
end

local last, paused_until = string.match(call('GET', P .. 'upkeep') or '', '^(%d+) (%d+)$')
last, paused_until = tonumber(last) or NOW, tonumber(paused_until) or 0
local reclaim_pause = math.max(paused_until - NOW, 0)
if NOW - last > math.max(lease / 3, PAUSE_MIN_MS) then reclaim_pause = lease end

return {
  is_candidate and 1 or 0, due and 1 or 0,
  due and is_first('upkeep:look', ROUTING_CHECK_MS) and 1 or 0,
  due and is_first('upkeep:sweep', SWEEP_MS) and 1 or 0, math.floor(reclaim_pause),
}
