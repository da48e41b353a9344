# does: keeps all the watches of files it may, which take their time to be taken down
# expect: timed_out
# limits: {"timeout_ms": 2000, "cpu_ms": 60000}
# stdout: "contained\n"

import ctypes, os, signal

libc = ctypes.CDLL(None, use_errno=True)
os.write(1, b"contained\n")
for _ in range(20):
    if os.fork() == 0:
        break
for _ in range(1000):
    watch = libc.inotify_init()
    if watch < 0:
        break
    for place in (b"/work", b"/tmp", b"/usr/lib", b"/etc"):
        libc.inotify_add_watch(watch, place, 0xFFF)
signal.pause()
