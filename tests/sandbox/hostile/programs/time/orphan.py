# does: forks twice and leaves an orphan in a session of its own, then waits
# expect: timed_out
# limits: {"timeout_ms": 300}

import os, time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)
os.wait()
time.sleep(1000)
