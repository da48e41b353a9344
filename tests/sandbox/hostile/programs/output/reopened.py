# does: opens its output again by every name, and cuts and seeks it
# expect: succeeded
# stdout: "again\nagain\nagain\ncontained\n"

import os

for path in ("/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"):
    try:
        with open(path, "wb", buffering=0) as again:
            again.write(b"again\n")
    except OSError:
        os.write(1, b"again\n")
for attempt in (lambda: os.ftruncate(1, 0), lambda: os.lseek(1, 0, 0), lambda: os.read(1, 1)):
    try:
        attempt()
        print("got through")
    except OSError:
        pass
print("contained")
