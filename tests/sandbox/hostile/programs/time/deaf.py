# does: ignores every signal that can be ignored
# expect: timed_out
# limits: {"timeout_ms": 300}

import signal, time

for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True:
    time.sleep(1)
