# does: reads and writes another process's memory
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import ctypes, errno

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *words):
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(word) for word in words))
    return None if done != -1 else errno.errorcode[ctypes.get_errno()]


for name, number, *words in [
    ('process_vm_readv', 310, 1, 0, 0, 0, 0, 0),
    ('process_vm_writev', 311, 1, 0, 0, 0, 0, 0),
    ('pidfd_getfd', 438, 0, 0, 0),
    ('kcmp', 312, 1, 1, 0, 0, 0),
]:
    answer = call(number, *words)
    if answer not in ('EPERM',):
        print('got through:', name, answer)
print('contained')
