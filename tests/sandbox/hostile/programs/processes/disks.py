# does: has every file system of the machine written to its disks, over and over
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
SYNC, SYNCFS = 162, 306
for _ in range(20_000):
    libc.syscall(ctypes.c_long(SYNC))
    # A call that passes the filter fails because of the invalid descriptor.
    if libc.syscall(ctypes.c_long(SYNCFS), ctypes.c_long(-1)) != 0:
        print("got through: syncfs", ctypes.get_errno())
        break
print("contained")
