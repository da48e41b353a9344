# does: looks for ways out
# expect: succeeded
# stdout: "contained\n"
# wall: "network"

import fcntl, os, socket, struct

names = [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]]
if names != ["lo"]:
    print("got through:", names)
if open("/proc/net/route").read().splitlines()[1:]:
    print("got through: a route")
with socket.socket() as any:
    for request in (0x8914, 0x890B, 0x89A0):  # set flags, add a route, add a bridge
        try:
            fcntl.ioctl(any, request, struct.pack("16sh22x", b"lo", 0))
            print("got through:", hex(request))
        except OSError:
            pass
print("contained")
