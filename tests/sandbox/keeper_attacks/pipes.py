# Fills the buffers of as many pipes as its user may have.
import fcntl, os

held, filled = [], 0
try:
    while filled < 80 << 20:
        read, write = os.pipe()
        held.append((read, write))
        os.set_blocking(write, False)
        fcntl.fcntl(write, 1031, 1 << 20)
        while True:
            try:
                filled += os.write(write, bytes(1 << 16))
            except BlockingIOError:
                break
except OSError:
    pass
print([] if filled else ["nothing to fill"], flush=True)
