# does: makes a call by another ABI's number
# expect: failed
# signal: "SIGSYS"
# stdout: ""
# wall: "seccomp"

import ctypes, errno

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *words):
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(word) for word in words))
    return None if done != -1 else errno.errorcode[ctypes.get_errno()]


call(0x40000000 + 39)
print('got through')
