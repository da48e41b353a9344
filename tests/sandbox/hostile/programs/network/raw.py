# does: opens sockets that are not for programs
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import os
import socket

for name, attempt in {
    'raw': lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    'raw IPv6': lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58),
    'packet': lambda: socket.socket(17, socket.SOCK_RAW, 0x300),
    'netlink': lambda: socket.socket(16, socket.SOCK_RAW, 0),
    'audit': lambda: socket.socket(16, socket.SOCK_RAW, 9),
    'vsock': lambda: socket.socket(40, socket.SOCK_STREAM),
    'crypto': lambda: socket.socket(38, socket.SOCK_SEQPACKET),
    'bluetooth': lambda: socket.socket(31, socket.SOCK_RAW, 1),
    'can': lambda: socket.socket(29, socket.SOCK_RAW, 1),
    'sctp': lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132),
    'xdp': lambda: socket.socket(44, socket.SOCK_RAW),
    'tipc': lambda: socket.socket(30, socket.SOCK_RAW),
}.items():
    try:
        attempt()
        print('got through:', name)
    except OSError:
        pass
print('contained')
