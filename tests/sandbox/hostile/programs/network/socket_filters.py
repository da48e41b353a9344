# does: attaches filters to sockets, whose machine code the kernel bounds for all users together
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import ctypes, errno, socket, struct

LONG, SHORT = 2400, 1


def filter_of(length):
    load = struct.pack("=HBBI", 0x28, 0, 0, 0)
    divide = struct.pack("=HBBI", 0x3C, 0, 0, 0)
    accept = struct.pack("=HBBI", 0x06, 0, 0, 0xFFFF)
    code = ctypes.create_string_buffer(load * (length > 1) + divide * (length - 2) + accept)
    return code, struct.pack("=HxxxxxxQ", length, ctypes.addressof(code))


held = [filter_of(LONG), filter_of(SHORT)]
number = struct.pack("i", 1)
for name, family, kind in [
    ("unix", socket.AF_UNIX, socket.SOCK_DGRAM),
    ("udp", socket.AF_INET, socket.SOCK_DGRAM),
    ("tcp", socket.AF_INET6, socket.SOCK_STREAM),
]:
    one = socket.socket(family, kind)
    if family != socket.AF_UNIX:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for option, values in [
        ("SO_ATTACH_FILTER", [(26, value) for _code, value in held]),
        ("SO_ATTACH_BPF", [(50, number)]),
        ("SO_ATTACH_REUSEPORT_CBPF", [(51, value) for _code, value in held]),
        ("SO_ATTACH_REUSEPORT_EBPF", [(52, number)]),
        ("SO_LOCK_FILTER", [(44, number)]),
    ]:
        for option_number, value in values:
            try:
                one.setsockopt(socket.SOL_SOCKET, option_number, value)
                print("got through:", name, option)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    print("got another answer:", name, option, error)
print("contained")
