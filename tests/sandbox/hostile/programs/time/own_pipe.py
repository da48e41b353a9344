# does: reads a pipe that only itself could write
# expect: timed_out
# limits: {"timeout_ms": 300}

import os

read, write = os.pipe()
os.read(read, 1)
