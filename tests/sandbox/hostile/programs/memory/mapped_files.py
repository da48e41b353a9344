# does: holds very many files of the machine by mappings, without a descriptor
# expect: out_of_memory
# limits: {"memory": "64MiB"}

import ctypes, os, signal

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
FAILED = ctypes.c_void_p(-1).value
open("/tmp/one", "w").write("x")
for _ in range(20):
    if os.fork():
        continue
    for number in range(60_000):
        file = os.open("/tmp/one", os.O_RDONLY)
        # Two kinds of mapping take turns, so that the kernel does not merge neighbours.
        kind = 1 + number % 2
        if libc.mmap(None, ctypes.c_size_t(4096), 1, kind, file, ctypes.c_long(0)) == FAILED:
            break
        os.close(file)
    signal.pause()
signal.pause()
