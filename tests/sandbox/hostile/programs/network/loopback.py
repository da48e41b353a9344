# does: talks to itself, which it may
# expect: succeeded
# stdout: "contained\n"

import socket

for host in ("127.0.0.1", "::1", "localhost"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            peer, _ = server.accept()
            client.sendall(b"hello")
            assert peer.recv(5) == b"hello"
            peer.close()
print("contained")
