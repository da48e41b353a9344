# does: makes processes whose parent is its own, which for a clone is outside the cell
# expect: succeeded
# stdout: "contained\n"
# runs: 3
# wall: "seccomp"

import ctypes, errno, os

libc = ctypes.CDLL(None, use_errno=True)
CLONE, SIGCHLD = 56, 17
FLAGS = {"CLONE_PARENT": 0x8000, "CLONE_PARENT among others": 0x8000 | 0x400 | 0x200}
for name, flags in FLAGS.items():
    for signal in (SIGCHLD, 0):
        ctypes.set_errno(0)
        child = libc.syscall(ctypes.c_long(CLONE), ctypes.c_ulong(flags | signal), 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        if child > 0 or ctypes.get_errno() != errno.EPERM:
            print("got through:", name, child)
print("contained")
