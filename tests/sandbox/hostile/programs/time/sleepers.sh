# does: waits for children that wait
# expect: timed_out
# limits: {"timeout_ms": 300}

for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done
wait
