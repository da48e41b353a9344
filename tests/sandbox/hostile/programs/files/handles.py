# does: opens files by handle, past every mount
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
    ('name_to_handle_at', 303, 0, 0, 0, 0, 0),
    ('open_by_handle_at', 304, 0, 0, 0),
]:
    answer = call(number, *words)
    if answer not in ('EPERM',):
        print('got through:', name, answer)
print('contained')
