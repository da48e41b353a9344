# does: connects to a listener of the host, which is there
# expect: succeeded
# stdout: "contained\n"
# given: "listener"
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


for host in input_data['hosts']:
    reach(host, input_data['port'])
    if not host.startswith('127.'):
        reach(host, input_data['port'], socket.SOCK_DGRAM)
print('contained')
