# does: sleeps
# expect: timed_out
# limits: {"timeout_ms": 300}

import time

time.sleep(1000)
