# does: has each of many processes open terminals and keep them, by number and by the other name
# expect: succeeded
# stdout: "contained\n"
# limits: {"pids": 64}

import os, signal

BOUND = 64

read, write = os.pipe()
children = []
for number in range(30):
    child = os.fork()
    if child == 0:
        opened = 0
        try:
            while opened < 20:
                os.open(("/dev/ptmx", "/dev/pts/ptmx")[opened % 2], os.O_RDWR | os.O_NOCTTY)
                opened += 1
        except OSError:
            pass
        os.write(write, bytes([opened]))
        signal.pause()
    children.append(child)
total = sum(os.read(read, 1)[0] for _ in children)
print("contained" if total <= BOUND else f"got through: {total} terminals")
