# does: lets a child die of it and goes on
# expect: out_of_memory
# limits: {"memory": "48MiB"}

import os, time

if os.fork() == 0:
    hoard = []
    while True:
        hoard.append(b'x' * (1 << 20))
os.wait()
time.sleep(1000)
