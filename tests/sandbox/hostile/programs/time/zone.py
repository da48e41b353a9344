# does: names a terminal as its time zone, which is read before its code begins
# expect: timed_out
# limits: {"timeout_ms": 1000}
# env: {"TZ": "/dev/ptmx"}
# stdout: ""
print("ran")
