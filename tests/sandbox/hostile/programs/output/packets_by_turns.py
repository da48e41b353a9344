# does: writes packets of one byte to both streams by turns
# expect: succeeded
# stderr: "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
# stdout_repeat: ["o", 32]

import fcntl, os

for stream in (1, 2):
    fcntl.fcntl(stream, fcntl.F_SETFL, fcntl.fcntl(stream, fcntl.F_GETFL) | os.O_DIRECT)
for _ in range(32):
    os.write(1, b"o")
    os.write(2, b"e")
