# does: makes namespaces, a user one first
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
    ('user', 272, 268435456),
    ('user and mount', 272, 268566528),
    ('mount', 272, 131072),
    ('pid', 272, 536870912),
    ('net', 272, 1073741824),
    ('ipc', 272, 134217728),
    ('uts', 272, 67108864),
    ('cgroup', 272, 33554432),
    ('clone user', 56, 268435473, 0, 0, 0, 0),
    ('setns', 308, 0, 0),
]:
    answer = call(number, *words)
    if answer not in ('EPERM',):
        print('got through:', name, answer)
print('contained')
