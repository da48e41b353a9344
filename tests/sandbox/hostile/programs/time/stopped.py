# does: stops itself, so that no signal but SIGKILL and SIGCONT is delivered
# expect: timed_out
# limits: {"timeout_ms": 300}

import os, signal

os.kill(os.getpid(), signal.SIGSTOP)
