# does: signals itself a hundred thousand times
# expect: succeeded
# stdout: "contained\n"

import os, signal

signal.signal(signal.SIGUSR1, lambda *_: None)
for _ in range(100_000):
    os.kill(os.getpid(), signal.SIGUSR1)
print("contained")
