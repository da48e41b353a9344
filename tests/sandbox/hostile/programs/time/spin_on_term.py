# does: answers SIGTERM by spinning in the handler
# expect: timed_out
# limits: {"timeout_ms": 300}

import signal


def again(*_):
    while True:
        pass


signal.signal(signal.SIGTERM, again)
while True:
    signal.pause()
