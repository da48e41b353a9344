# does: has eight children, each below the cap, together above it
# expect: out_of_memory
# limits: {"memory": "48MiB"}
# peak_at_least: 41943040
# wall: "cgroup"

import os, time

for _ in range(8):
    if os.fork() == 0:
        hoard = os.urandom(16 << 20)
        time.sleep(1000)
for _ in range(8):
    os.wait()
