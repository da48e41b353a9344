# does: asks a cloud for its keys
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


for host in ('169.254.169.254', '169.254.170.2', '100.100.100.200', '192.0.0.192', 'fd00:ec2::254'):
    reach(host, 80)
print('contained')
