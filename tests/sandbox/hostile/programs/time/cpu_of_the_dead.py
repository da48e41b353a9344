# does: burns CPU time in short-lived children, one after another
# expect: cpu_limit
# limits: {"cpu_ms": 200}

import os

while True:
    if os.fork() == 0:
        sum(range(300_000))
        os._exit(0)
    os.wait()
