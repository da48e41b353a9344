# does: answers SIGTERM with a process in a session of its own
# expect: timed_out
# limits: {"timeout_ms": 300}

import os, signal, time


def again(*_):
    if os.fork() == 0:
        os.setsid()
    signal.signal(signal.SIGTERM, again)


signal.signal(signal.SIGTERM, again)
while True:
    time.sleep(1)
