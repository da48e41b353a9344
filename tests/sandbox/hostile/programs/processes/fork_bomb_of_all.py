# does: has every process fork
# expect: timed_out
# limits: {"pids": 24, "timeout_ms": 500}

import os

while True:
    try:
        os.fork()
    except OSError:
        pass
