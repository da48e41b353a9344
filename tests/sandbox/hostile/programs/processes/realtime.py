# does: asks for real-time priority and to be nicer to itself
# expect: succeeded
# stdout: "contained\n"

import os

param = os.sched_param(1)
for name, attempt in {
    "fifo": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, param),
    "round robin": lambda: os.sched_setscheduler(0, os.SCHED_RR, param),
    "nice": lambda: os.nice(-1),
    "priority": lambda: os.setpriority(os.PRIO_USER, 0, -20),
}.items():
    try:
        attempt()
        print("got through:", name)
    except OSError:
        pass
print("contained")
