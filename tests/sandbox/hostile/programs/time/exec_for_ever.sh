# does: becomes itself again and again
# expect: timed_out
# limits: {"timeout_ms": 300}

exec bash main.sh
