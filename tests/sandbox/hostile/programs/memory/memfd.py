# does: fills a file that has no name
# expect: out_of_memory
# limits: {"memory": "48MiB", "scratch": "256MiB"}

import os

file = os.memfd_create('x')
while True:
    os.write(file, bytes(1 << 20))
