# does: ends while a child holds its output open
# expect: succeeded
# stdout: "mine\n"

import os, time

if os.fork() == 0:
    os.setsid()
    time.sleep(1000)
print("mine", flush=True)
os._exit(0)
