# does: fills a System V segment
# expect: out_of_memory
# limits: {"memory": "48MiB"}

import ctypes

libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, ctypes.c_size_t(1 << 30), 0o1600)
place = libc.shmat(segment, None, 0)
ctypes.memset(place, 1, 1 << 30)
