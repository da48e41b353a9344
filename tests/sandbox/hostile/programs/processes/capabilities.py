# does: looks for capabilities, and takes them back
# expect: succeeded
# stdout: "contained\n"
# wall: "user"

import ctypes

fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
    if int(fields["Cap" + name], 16):
        print("got through:", name, fields["Cap" + name].strip())
if fields["NoNewPrivs"].strip() != "1":
    print("got through: new privileges")
libc = ctypes.CDLL(None)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
everything = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
if libc.capset(header, everything) == 0:
    print("got through: capset")
if libc.prctl(38, 0, 0, 0, 0) == 0:
    print("got through: privileges back")
print("contained")
