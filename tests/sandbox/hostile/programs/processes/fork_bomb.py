# does: forks until it may not
# expect: process_limit
# limits: {"pids": 24}
# wall: "cgroup"

import os, time

while True:
    if os.fork() == 0:
        time.sleep(1000)
