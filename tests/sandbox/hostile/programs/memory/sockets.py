# does: fills the buffers of sockets that no process reads
# expect: out_of_memory
# limits: {"memory": "32MiB"}

import socket

held = []
try:
    while True:
        pair = socket.socketpair()
        held.append(pair)
        for end in pair:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
            try:
                while True:
                    end.send(bytes(1 << 14))
            except BlockingIOError:
                pass
except OSError as error:
    print("contained")
