# does: overwrites the running runner through /proc
# expect: succeeded
# stdout: "contained\n"

import os

for entry in os.listdir("/proc"):
    if entry.isdigit():
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            try:
                os.open(f"/proc/{entry}/exe", flags)
                print("got through:", entry)
            except OSError:
                pass
for path in ("/proc/1/exe", "/proc/self/exe", "/usr/lib/sandhog/runner"):
    try:
        os.open(path, os.O_RDWR)
        print("got through:", path)
    except OSError:
        pass
print("contained")
