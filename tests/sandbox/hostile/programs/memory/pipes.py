# does: fills the buffers of pipes that no process reads
# expect: out_of_memory
# limits: {"memory": "24MiB"}

import fcntl, os

held = []
try:
    while True:
        read, write = os.pipe()
        held.append((read, write))
        try:
            fcntl.fcntl(write, 1031, 1 << 20)
        except OSError:
            pass
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, bytes(1 << 12))
        except BlockingIOError:
            pass
except OSError as error:
    print("contained")
