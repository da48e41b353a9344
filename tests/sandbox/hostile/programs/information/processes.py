# does: looks for other processes
# expect: succeeded
# stdout: "contained\n"
# wall: "proc"

import os

own = {os.getpid()}
seen = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}
if seen - own:
    print("got through:", seen)
for pid in range(1, 5000):
    if pid not in own and os.path.exists(f"/proc/{pid}/status"):
        print("got through:", pid)
print("contained")
