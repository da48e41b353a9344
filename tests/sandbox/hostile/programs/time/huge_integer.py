# does: computes a number that never ends, inside one call of C
# expect: timed_out
# limits: {"timeout_ms": 300}

9 ** 9 ** 9
