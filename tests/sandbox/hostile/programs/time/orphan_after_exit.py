# does: exits at once and leaves a spinning orphan that closed everything
# expect: succeeded
# stdout: "gone\n"
# wall: "namespaces"

import os

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 256)
        while True:
            pass
    os._exit(0)
os.wait()
print("gone", flush=True)
os._exit(0)
