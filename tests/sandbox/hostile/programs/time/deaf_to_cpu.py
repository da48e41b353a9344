# does: ignores the kernel's own signal for CPU time
# expect: cpu_limit
# limits: {"cpu_ms": 200}

import signal

signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while True:
    pass
