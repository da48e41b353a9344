# does: blocks every signal and waits for one
# expect: timed_out
# limits: {"timeout_ms": 300}

import signal

signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
while True:
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
