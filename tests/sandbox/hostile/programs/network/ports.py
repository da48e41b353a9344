# does: takes a thousand ports and leaves connections half closed
# expect: succeeded
# stdout: "contained\n"

import socket

held = []
server = socket.create_server(("127.0.0.1", 0), backlog=512)
try:
    while True:
        held.append(socket.create_connection(server.getsockname()))
        held.append(server.accept()[0])
except OSError:
    print("contained")
