# does: makes a 32-bit call
# expect: failed
# signal: "SIGSYS"
# stdout: ""
# wall: "seccomp"

import ctypes, mmap

# mov eax, 20 (getpid); int 0x80; ret
code = mmap.mmap(-1, 4096, prot=7)
code.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print("got through")
