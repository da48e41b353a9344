# does: makes its output nonblocking and floods it
# expect: succeeded
# limits: {"output": 1000}
# stdout_repeat: ["x", 1000]
# truncated: ["stdout"]

import os

os.set_blocking(1, False)
sent = 0
while sent < 2_000_000:
    try:
        sent += os.write(1, b"x" * 65536)
    except BlockingIOError:
        pass
