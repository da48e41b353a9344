# Waits for the ends of processes that are not its own, and asks to inherit orphans.
import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)
found = []
libc.prctl(36, 1, 0, 0, 0)
into = ctypes.create_string_buffer(128)
for pid in range(1, 3000):
    for kind in (1, 2):
        # WNOHANG, WEXITED, WSTOPPED, WCONTINUED and WNOWAIT.
        if libc.waitid(kind, pid, into, 0x0100000F) == 0:
            found.append("waited for %d" % pid)
    if pid != os.getpid():
        try:
            os.close(os.pidfd_open(pid))
            found.append("descriptor of %d" % pid) if pid != 1 else None
        except OSError:
            pass
for kind in (0x40000000, 0x80000000):
    if libc.waitpid(-1, into, 1 | kind) > 0:
        found.append("a child")
if os.getppid() > 1:
    found.append("the parent %d" % os.getppid())
print(found)
