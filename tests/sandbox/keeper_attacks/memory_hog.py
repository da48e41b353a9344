# Uses up the memory of its sandbox, in memory and in files.
import os

held = []
while True:
    held.append(os.urandom(1 << 16) * 8)
    try:
        with open("/dev/shm/%d" % len(held), "wb", buffering=0) as file:
            file.write(held[-1])
    except OSError:
        pass
