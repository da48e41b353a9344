# does: fills a shared anonymous map
# expect: out_of_memory
# limits: {"memory": "48MiB"}

import mmap

block = mmap.mmap(-1, 1 << 30)
while True:
    block.write(b'x' * (1 << 20))
