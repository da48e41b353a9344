# does: spins
# expect: timed_out
# limits: {"timeout_ms": 300}

while True:
    pass
