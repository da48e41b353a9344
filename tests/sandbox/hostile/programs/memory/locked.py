# does: locks memory, so that it could never be swapped
# expect: succeeded
# stdout: "contained\n"

import ctypes

libc = ctypes.CDLL(None)
block = ctypes.create_string_buffer(1 << 20)
if libc.mlock(block, 1 << 20) == 0 or libc.mlockall(3) == 0:
    print("got through")
print("contained")
