# does: calls into large and often broken parts of the kernel
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
    ('bpf', 321, 0, 0, 0),
    ('keyctl', 250, 0, -3, 0),
    ('add_key', 248, 0, 0, 0, 0, 0),
    ('request_key', 249, 0, 0, 0, 0),
    ('io_uring_setup', 425, 1, 0),
    ('userfaultfd', 323, 0),
    ('perf_event_open', 298, 0, 0, -1, -1, 0),
    ('fanotify_init', 300, 0, 0),
    ('memfd_secret', 447, 0),
]:
    answer = call(number, *words)
    if answer not in ('EPERM',):
        print('got through:', name, answer)
print('contained')
