# does: leaves by a descriptor or a working directory that was left open
# expect: succeeded
# stdout: "contained\n"
# wall: "descriptors"

import os, stat

if os.getcwd() != "/work" or os.path.realpath("/proc/self/cwd") != "/work" or os.path.realpath("/proc/self/root") != "/":
    print("got through: working directory")
for entry in os.listdir("/proc/self/fd"):
    try:
        kind = os.fstat(int(entry)).st_mode
    except OSError:
        continue  # the descriptor of the listing itself
    null = stat.S_ISCHR(kind) and os.fstat(int(entry)).st_rdev == os.makedev(1, 3)
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or (entry == "0" and null)):
        print("got through:", entry, os.readlink(f"/proc/self/fd/{entry}"))
print("contained")
