# does: reads what the runner is doing
# expect: succeeded
# stdout: "contained\n"
# wall: "proc"

import os

for pid in (1, os.getppid()):
    if pid == 0:
        continue
    for name in ("environ", "maps", "mem", "stack", "syscall", "io", "auxv", "pagemap", "cwd", "exe", "root", "fd/0", "ns/mnt", "ns/pid"):
        path = f"/proc/{pid}/{name}"
        try:
            os.readlink(path) if name in ("cwd", "exe", "root", "fd/0") or name.startswith("ns") else open(path, "rb").read(1)
            print("got through:", path)
        except OSError:
            pass
print("contained")
