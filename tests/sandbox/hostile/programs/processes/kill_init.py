# does: kills the cell's own pid 1, by every way there is
# expect: succeeded
# stdout: "contained\n"

import os, signal

for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGCHLD, signal.SIGRTMAX):
    try:
        os.kill(1, number)
        print("got through: kill", number)
    except OSError:
        pass
    try:
        signal.pidfd_send_signal(os.pidfd_open(1), number)
        print("got through: pidfd", number)
    except OSError:
        pass
print("contained")
