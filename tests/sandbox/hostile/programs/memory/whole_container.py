# does: fills files with as much memory as a job may have, and asks to be killed last
# expect: out_of_memory
# limits: {"memory": "2GiB", "scratch": "1GiB", "timeout_ms": 120000}
# stdout: ""
# peak_at_least: 2000000000

import os

for score in range(0, 1001, 50):
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
        break
    except OSError:
        pass
piece = bytes(1 << 20)
number = 0
while True:
    for place in ("/dev/shm", "/tmp", "/work"):
        with open(f"{place}/{number}", "wb") as file:
            file.write(piece)
        number += 1
    # Small processes come and go, so that the kernel never finds a large one here.
    if number % 300 == 0:
        os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
