# does: leaves files that cannot be removed
# expect: succeeded
# stdout: "contained\n"

import fcntl, os, struct

with open("/tmp/x", "w") as file:
    for flags in (0x10, 0x20):  # immutable, append only
        try:
            fcntl.ioctl(file, 0x40086602, struct.pack("l", flags))
            print("got through:", flags)
        except OSError:
            pass
os.mkdir("/tmp/d", 0o000)
os.mkdir("/work/sticky", 0o1000)
print("contained")
