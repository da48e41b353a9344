# Leaves and finds keys in keyrings of its user, its session and the machine.
import ctypes, platform

libc = ctypes.CDLL(None, use_errno=True)
found = []
add, request, control = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}[platform.machine()]
for ring in range(-8, 0):
    if libc.syscall(add, b"user", b"own", b"secret", 6, ring) != -1:
        found.append("added to %d" % ring)
    if libc.syscall(control, 0, ring, 1) != -1:
        found.append("keyring %d" % ring)
    if libc.syscall(request, b"user", b"own", None, ring) != -1:
        found.append("found in %d" % ring)
for number in range(1, 2000):
    if libc.syscall(control, 11, number, None, 0) != -1:
        found.append("read %d" % number)
for path in ("/proc/keys", "/proc/key-users"):
    try:
        found += open(path).read().splitlines()
    except OSError:
        pass
print(found)
