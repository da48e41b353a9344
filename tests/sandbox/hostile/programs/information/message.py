# does: leaves a message for the next job by every way there is
# expect: succeeded
# runs: 2
# stdout: "contained\n"
# wall: "scratch"

import ctypes, os, socket, sys

libc = ctypes.CDLL(None)
KEY = 0x5A4D
found = []
paths = [place + "/message" for place in ("/tmp", "/var/tmp", "/dev/shm", "/work", "/run", "/dev/mqueue", "/var/lock", "/home")]
found += [path for path in paths if os.path.exists(path)]
for path in paths:
    try:
        open(path, "w").write("message")
    except OSError:
        pass
for name, make in (("segment", lambda flags: libc.shmget(KEY, 4096, flags)), ("semaphores", lambda flags: libc.semget(KEY, 1, flags)), ("queue", lambda flags: libc.msgget(KEY, flags))):
    if make(0) != -1:
        found.append(name)
    make(0o1666)
library = ctypes.CDLL("librt.so.1")
if library.mq_open(b"/message", 0) != -1:
    found.append("posix queue")
library.mq_open(b"/message", 0o100 | 0o2, 0o666, None)
holder = socket.socket(socket.AF_UNIX)
try:
    holder.bind("\0message")
except OSError:
    found.append("abstract socket")
for variable in ("MESSAGE",):
    if variable in os.environ:
        found.append(variable)
    os.environ[variable] = "1"
print("got through: " + repr(found) if found else "contained")
