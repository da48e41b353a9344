# does: prints fifty thousand times one byte
# expect: succeeded
# stdout_repeat: ["x", 50000]

import os

for _ in range(50_000):
    os.write(1, b'x')
