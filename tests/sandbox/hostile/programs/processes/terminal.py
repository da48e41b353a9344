# does: puts words into a terminal's input, and has a line discipline loaded for it
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
    ('TIOCSTI', 16, 0, 21522, 0),
    ('TIOCLINUX', 16, 0, 21532, 0),
    ('TIOCSETD', 16, 0, 0x5423, 0),
]:
    answer = call(number, *words)
    if answer not in ('EPERM',):
        print('got through:', name, answer)
print('contained')
