# does: becomes another user or group
# expect: succeeded
# stdout: "contained\n"
# wall: "user"

import os

for name, attempt in {
    "setuid": lambda: os.setuid(0),
    "setreuid": lambda: os.setreuid(0, 0),
    "setresuid": lambda: os.setresuid(-1, 0, -1),
    "setgid": lambda: os.setgid(0),
    "setgroups": lambda: os.setgroups([0]),
    "neighbour": lambda: os.setuid(1000),
}.items():
    try:
        attempt()
        print("got through:", name)
    except OSError:
        pass
print("contained")
