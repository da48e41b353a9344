# does: enters the namespaces of others
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import os

libc = __import__("ctypes").CDLL(None)
for pid in (1, os.getppid(), os.getpid()):
    for kind in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup"):
        try:
            descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        except OSError:
            continue
        if libc.setns(descriptor, 0) == 0:
            print("got through:", pid, kind)
print("contained")
