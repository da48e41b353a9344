# does: ends the first process while its children go on
# expect: succeeded

import os, time

for _ in range(4):
    if os.fork() == 0:
        while True:
            time.sleep(0.001)
os._exit(0)
