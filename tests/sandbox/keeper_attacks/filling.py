# Fills each place that it can write to, first with bytes and then with empty files.
import os

MOST = 48 << 20
found = []
places = [
    path
    for path in ("/tmp", "/var/tmp", "/dev/shm", "/work", "/run", "/dev", "/dev/pts", "/")
    if os.access(path, os.W_OK)
]
for place in places:
    try:
        with open(place + "/bytes", "wb", buffering=0) as file:
            while file.tell() < MOST:
                file.write(bytes(1 << 16))
    except OSError:
        pass
    made = 0
    try:
        while made < 100_000:
            open("%s/%d" % (place, made), "w").close()
            made += 1
    except OSError:
        pass
if "/tmp" not in places:
    found.append("nothing to fill")
found += [place for place in ("/run", "/dev/pts", "/") if place in places]
print(found)
