-- TEST ONLY: in no build but one made with --cfg sandhog_test_no_fence, which scripts/chaos makes to show that it
-- would find duplicate results if there were no fence. Settling then believes whoever calls.
held = function(_, job) return job ~= nil end

