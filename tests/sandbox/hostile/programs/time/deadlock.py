# does: waits for a lock it holds
# expect: timed_out
# limits: {"timeout_ms": 300}

import threading

lock = threading.Lock()
lock.acquire()
lock.acquire()
