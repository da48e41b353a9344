# does: writes messages of every kind that no harness sends, also a large one and the runner's own
# expect: succeeded
# value: 7
# completed: true
# displays: 0
# displays_dropped: 0

import os

for kind in range(256):
    if kind not in b"AD":
        for body in (b"", b"A", b"D\x00\x00"):
            os.write(3, bytes((kind,)) + len(body).to_bytes(4, "big") + body)
os.write(3, b"Z" + (32 << 20).to_bytes(4, "big"))
for _ in range(32):
    os.write(3, bytes(1 << 20))
7
