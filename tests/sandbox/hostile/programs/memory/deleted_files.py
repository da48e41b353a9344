# does: fills files that are deleted and held open
# expect: out_of_memory
# limits: {"memory": "48MiB", "scratch": "256MiB"}

import os

held = []
while True:
    file = open("/tmp/x", "wb")
    os.unlink("/tmp/x")
    file.write(bytes(1 << 20))
    file.flush()
    held.append(file)
