# does: makes a file of a tebibyte with nothing in it
# expect: succeeded
# stdout: "contained\n"
# wall: "rlimits"

import os, signal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for path in ("/tmp/x", "/work/x", "/dev/shm/x"):
    try:
        with open(path, "wb") as file:
            file.truncate(1 << 40)
        print("got through:", path)
    except OSError:
        pass
print("contained")
