# does: kills every process it can reach
# expect: succeeded
# stdout: "contained\n"

import os, signal

for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
    try:
        os.kill(-1, number)
    except OSError:
        pass
print("contained")
