# does: ignores SIGTERM in a shell and in what it starts
# expect: timed_out
# limits: {"timeout_ms": 300}

trap '' HUP INT QUIT TERM
while :; do sleep 1; done
