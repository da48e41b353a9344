# does: opens terminals until none are left, of those of the machine for all containers
# expect: succeeded
# stdout: "contained\n"
# limits: {"pids": 64}

import errno, os

BOUND = 64

opened = []
why = None
while len(opened) < BOUND:
    try:
        opened.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        why = error.errno
        break
if why != errno.ENOSPC:
    print("got through:", len(opened), "terminals,", why)
elif len(opened) < 8:
    print("too few terminals:", len(opened))
print("contained")
