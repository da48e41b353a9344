# does: spins beyond its CPU time
# expect: cpu_limit
# limits: {"cpu_ms": 200, "timeout_ms": 20000}

while True:
    pass
