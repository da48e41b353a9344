# does: takes slots of asynchronous I/O, of which there is one count for the whole machine
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import ctypes, errno

libc = ctypes.CDLL(None, use_errno=True)
context = ctypes.c_ulong(0)
for name, number, *words in [
    ("io_setup of all", 206, 65536, ctypes.addressof(context)),
    ("io_setup of one", 206, 1, ctypes.addressof(context)),
    ("io_destroy", 207, 0),
    ("io_getevents", 208, 0, 0, 0, 0, 0),
    ("io_submit", 209, 0, 0, 0),
    ("io_cancel", 210, 0, 0, 0),
    ("io_pgetevents", 333, 0, 0, 0, 0, 0, 0),
]:
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(word) for word in words))
    if done != -1 or ctypes.get_errno() != errno.EPERM:
        print("got through:", name, done, ctypes.get_errno())
print("contained")
