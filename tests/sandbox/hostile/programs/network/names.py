# does: asks for names
# expect: succeeded
# stdout: "contained\n"

import socket

for name in ("example.org", "localhost.localdomain.example", "metadata.google.internal", "host.docker.internal", "redis"):
    try:
        print("got through:", name, socket.getaddrinfo(name, 80))
    except OSError:
        pass
print("contained")
