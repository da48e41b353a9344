# does: sets pressure triggers in many processes, each of which delays their death
# expect: timed_out
# limits: {"timeout_ms": 2000, "cpu_ms": 60000}
# stdout: "contained\n"
# wall: "masks"

import os, signal

for _ in range(20):
    if os.fork() == 0:
        break
else:
    os.write(1, b"contained\n")
    signal.pause()
opened = []
try:
    while True:
        trigger = os.open("/proc/pressure/" + ("memory", "io", "cpu")[len(opened) % 3], os.O_RDWR)
        os.write(trigger, b"some 500000 2000000\0")
        opened.append(trigger)
except OSError:
    pass
if opened:
    os.write(1, b"got through: %d triggers\n" % len(opened))
signal.pause()
