# does: reserves a tebibyte of addresses and touches none
# expect: succeeded
# limits: {"memory": "48MiB"}
# stdout: "contained\n"

import mmap

block = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
print("contained")
