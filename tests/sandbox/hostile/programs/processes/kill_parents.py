# does: signals its parent, its group and its session
# expect: succeeded
# stdout: "contained\n"

import os, signal

for pid in (os.getppid(), -os.getpgid(0) if os.getpgid(0) != os.getpid() else 0):
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
            print("got through:", pid)
        except OSError:
            pass
print("contained")
