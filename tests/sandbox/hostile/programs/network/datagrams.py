# does: sends datagrams without connecting
# expect: succeeded
# stdout: "contained\n"
# wall: "network"

import socket

for host in ("1.1.1.1", "172.17.0.1", "169.254.169.254", "255.255.255.255", "224.0.0.251"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            out.sendto(b"x", (host, 53))
            print("got through:", host)
        except OSError:
            pass
print("contained")
