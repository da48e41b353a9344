# does: mounts, by every call that does
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
    ('mount', 165, 0, 0, 0, 0, 0),
    ('umount2', 166, 0, 0),
    ('pivot_root', 155, 0, 0),
    ('chroot', 161, 0),
    ('fsopen', 430, 0, 0),
    ('fsconfig', 431, 0, 0, 0, 0, 0),
    ('fsmount', 432, 0, 0, 0),
    ('open_tree', 428, 0, 0, 0),
    ('move_mount', 429, 0, 0, 0, 0, 0),
    ('mount_setattr', 442, 0, 0, 0, 0, 0),
]:
    answer = call(number, *words)
    if answer not in ('EPERM',):
        print('got through:', name, answer)
print('contained')
