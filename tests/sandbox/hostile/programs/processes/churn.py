# does: starts and ends two thousand processes
# expect: succeeded
# stdout: "contained\n"

import os

for _ in range(2000):
    if os.fork() == 0:
        os._exit(0)
    os.wait()
print("contained")
