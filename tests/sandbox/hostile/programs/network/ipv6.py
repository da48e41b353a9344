# does: connects to addresses of the newer world
# expect: succeeded
# stdout: "contained\n"
# wall: "network"

import socket


def reach(host, port, kind=socket.SOCK_STREAM):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, kind) as out:
            out.settimeout(1)
            out.connect((host, port))
            if kind == socket.SOCK_DGRAM:
                out.send(b"x")
        print("got through:", host, port)
    except OSError:
        pass


for host in ('2606:4700:4700::1111', '2001:4860:4860::8888', 'fd00::1', 'ff02::1', '::ffff:1.1.1.1'):
    reach(host, 443)
print('contained')
