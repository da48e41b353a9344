# does: is the shell's classic
# expect: timed_out
# limits: {"pids": 24, "timeout_ms": 500}

bomb() { bomb | bomb & }
bomb
wait
while :; do :; done
