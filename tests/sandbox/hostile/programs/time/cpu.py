# does: spins beyond its CPU time
# expect: cpu_limit
# limits: {"cpu_ms": 200}

while True:
    pass
