# does: reads what tells of the machine
# expect: succeeded
# stdout: "contained\n"
# wall: "masks"

import os

for path in ("/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/sched_debug", "/proc/cmdline",
             "/proc/partitions", "/proc/diskstats", "/proc/modules", "/proc/interrupts", "/proc/config.gz", "/proc/locks"):
    try:
        with open(path, "rb") as file:
            if file.read(1):
                print("got through:", path)
    except OSError:
        pass
for path in ("/sys", "/run", "/proc/acpi", "/proc/scsi", "/proc/bus", "/proc/irq", "/proc/fs", "/proc/driver"):
    if os.path.isdir(path) and os.listdir(path):
        print("got through:", path)
print("contained")
