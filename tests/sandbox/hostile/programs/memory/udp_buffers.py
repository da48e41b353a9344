# does: fills the buffers of UDP sockets without a reader, beside most of its memory
# expect: out_of_memory
# limits: {"memory": "64MiB"}
# peak_at_least: 60000000

import socket

hoard = bytearray(b"x") * (24 << 20)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sockets, sent = [], 0
for _ in range(400):
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    receiver.bind(("127.0.0.1", 0))
    sockets.append(receiver)
    for _ in range(40):
        try:
            sent += sender.sendto(bytes(60_000), receiver.getsockname())
        except OSError:
            pass
more = bytearray(b"x") * (48 << 20)
print("got through:", sent >> 20, "MiB sent")
