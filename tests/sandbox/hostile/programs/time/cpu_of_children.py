# does: has children spin beyond its CPU time
# expect: cpu_limit
# limits: {"cpu_ms": 200}

import os

for _ in range(4):
    if os.fork() == 0:
        while True:
            pass
for _ in range(4):
    os.wait()
