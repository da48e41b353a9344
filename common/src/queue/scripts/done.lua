-- Drops intake entries that were requests and have been met.
--
-- ARGV     entry ids
-- Replies  1
--
-- Acknowledging and deleting are one step: an entry acknowledged but not deleted would stay for ever.

local jobs = P .. 'jobs'
if not remove(jobs, ADMIT_GROUP, ARGV) then call('XDEL', jobs, unpack(ARGV)) end
return 1
