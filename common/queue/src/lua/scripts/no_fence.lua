-- TEST ONLY: removes the fence from settlement, so that every caller counts as the holder of the
-- lease.
--
-- This file is put before finish.lua only in a build with --cfg sandhog_test_no_fence.
-- scripts/chaos makes that build to show that it finds duplicate results when there is no fence. It
-- takes no arguments.
is_held = function(_, job) return job ~= nil end
