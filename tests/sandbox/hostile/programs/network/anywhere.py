# does: connects to addresses of the world
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


for host in ('1.1.1.1', '8.8.8.8', '10.0.0.1', '192.168.0.1', '100.64.0.1', '224.0.0.1', '255.255.255.255'):
    for port in (53, 80, 443):
        reach(host, port)
print('contained')
