# does: searches its memory, its descriptors and all small files for the worker's secrets
# expect: succeeded
# stdout: "contained\n"

import os

needles = ("SANDHOG_" + "WORKER", "SANDHOG_" + "REDIS", "redis" + "://", "canary-" + "of-the-worker")
for top in ("/etc", "/proc/self", "/proc/1", "/dev", "/run", "/tmp", "/var", "/home", "/root", "/opt", "/srv", "/mnt"):
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if name not in ("fd", "task", "map_files", "cwd", "root")]
        for name in files:
            path = os.path.join(folder, name)
            try:
                if not os.path.isfile(path) or os.path.getsize(path) > 1 << 20:
                    continue
                with open(path, "rb") as file:
                    text = file.read(1 << 20)
            except OSError:
                continue
            for needle in needles:
                if needle.encode() in text:
                    print("got through:", path, needle)
print("contained")
