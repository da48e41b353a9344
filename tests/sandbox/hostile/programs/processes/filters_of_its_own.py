# does: installs seccomp filters, whose code has one bound for all users of the machine
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import ctypes, errno, os, struct

libc = ctypes.CDLL(None, use_errno=True)
PRCTL, SECCOMP = 157, 317
load = struct.pack("=HBBI", 0x20, 0, 0, 0)
divide = struct.pack("=HBBI", 0x34, 0, 0, 3)
allow = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
code = ctypes.create_string_buffer(load + divide * 2000 + allow)
program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 2002, ctypes.addressof(code)))


def call(number, *words):
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(word) for word in words))
    return None if done != -1 else errno.errorcode[ctypes.get_errno()]


address = ctypes.addressof(program)
for _ in range(8):
    child = os.fork()
    if child == 0:
        for name, number, *words in [
            ("a filter", SECCOMP, 1, 0, address),
            ("a filter with a listener", SECCOMP, 1, 8, address),
            ("strict mode", SECCOMP, 0, 0, 0),
            ("a filter by prctl", PRCTL, 22, 2, address),
            ("strict mode by prctl", PRCTL, 22, 1, 0),
            ("core scheduling", PRCTL, 62, 1, 0, 1, 0),
        ]:
            answer = call(number, *words)
            if answer != "EINVAL":
                os.write(1, b"got through: %s %r\n" % (name.encode(), answer))
        os._exit(0)
    os.waitpid(child, 0)
print("contained")
