-- Deletes intake entries that were requests and have been carried out.
--
-- KEYS[1]  key prefix of the namespace
-- ARGV[1]  first entry id; further entry ids follow
-- Result   1
--
-- Acknowledging and deleting are one step: an entry that is acknowledged but not deleted would stay
-- for ever.

local entries = ARGV
local jobs = P .. 'jobs'
if not remove_entries(jobs, ADMIT_GROUP, entries) then call('XDEL', jobs, unpack(entries)) end
return 1
