# does: answers with bytes that cannot be decoded on every descriptor it has
# expect: succeeded
# value: null
# stdout: ""

import os

for descriptor in range(3, 64):
    try:
        for _ in range(20):
            os.write(descriptor, os.urandom(1 << 20))
    except OSError:
        pass
os._exit(0)
