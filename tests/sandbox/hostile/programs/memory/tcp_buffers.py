# does: fills buffers of TCP connections to itself, which cgroup version 1 counts apart
# expect: out_of_memory
# limits: {"memory": "64MiB"}
# peak_at_least: 60000000

import socket

PIECE = bytes(1 << 16)
BOUND = 256 << 20

listener = socket.create_server(("127.0.0.1", 0), backlog=128)
sockets, held = [], 0


def fill(end):
    global held
    end.setblocking(False)
    try:
        while held < BOUND:
            held += end.send(PIECE)
    except BlockingIOError:
        pass


for _ in range(60):
    near = socket.socket()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    near.connect(listener.getsockname())
    far, _ = listener.accept()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sockets += [near, far]
    fill(near)
    fill(far)
# If the kernel refuses buffers beyond the cap, it counts this memory with them.
hoard = bytearray(b"x") * (48 << 20)
print("got through:", held >> 20, "MiB")
