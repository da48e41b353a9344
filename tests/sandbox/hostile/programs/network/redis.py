# does: connects to the worker's Redis and engine
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


for host in input_data['hosts'] + ['172.17.0.1', '172.18.0.1', 'localhost', 'redis', 'host.docker.internal']:
    for port in (6379, 2375, 2376):
        reach(host, port)
print('contained')
