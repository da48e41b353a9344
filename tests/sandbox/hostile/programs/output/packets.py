# does: makes its standard output a pipe of packets, so that each byte is one
# expect: succeeded
# stdout_repeat: ["x", 50000]

import fcntl, os

fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_DIRECT)
for _ in range(50_000):
    os.write(1, b"x")
