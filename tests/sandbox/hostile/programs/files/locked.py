# does: leaves a locked file of the image and a lease
# expect: succeeded
# stdout: "contained\n"

import fcntl, os

with open("/etc/passwd") as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.fork() == 0:
        os.setsid()
        os.pause() if hasattr(os, "pause") else __import__("time").sleep(1000)
    print("contained", flush=True)
    os._exit(0)
