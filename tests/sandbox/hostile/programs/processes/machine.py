# does: acts on the machine itself
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
    ('reboot', 169, 0, 0, 0, 0),
    ('kexec_load', 246, 0, 0, 0, 0),
    ('init_module', 175, 0, 0, 0),
    ('finit_module', 313, 0, 0, 0),
    ('delete_module', 176, 0, 0),
    ('swapon', 167, 0, 0),
    ('settimeofday', 164, 0, 0),
    ('clock_settime', 227, 0, 0),
    ('sethostname', 170, 0, 0),
    ('syslog', 103, 3, 0, 0),
    ('iopl', 172, 3),
    ('ioperm', 173, 0, 1, 1),
    ('acct', 163, 0),
]:
    answer = call(number, *words)
    if answer not in ('EPERM',):
        print('got through:', name, answer)
print('contained')
