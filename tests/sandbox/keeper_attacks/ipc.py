# Finds, reads and removes each segment, semaphore and queue that exists by key, number or name.
import ctypes, os

KEY = 0x5A4D
found = []
libc = ctypes.CDLL(None)
rt = ctypes.CDLL("librt.so.1")
into = ctypes.create_string_buffer(1024)
for name, result in (
    ("segment", libc.shmget(KEY, 0, 0)),
    ("semaphores", libc.semget(KEY, 0, 0)),
    ("queue", libc.msgget(KEY, 0)),
    ("queue by name", rt.mq_open(b"/own", 0)),
):
    if result != -1:
        found.append(name)
for number in range(70_000):
    for name, result in (
        ("segment at", libc.shmctl(number, 13, into) if number < 5000 else -1),
        ("queue at", libc.msgctl(number, 11, into) if number < 5000 else -1),
        ("semaphores at", libc.semctl(number, 0, 18, into) if number < 5000 else -1),
        ("removed segment", libc.shmctl(number, 0, None)),
        ("removed queue", libc.msgctl(number, 0, None)),
        ("removed semaphores", libc.semctl(number, 0, 0)),
        ("message of", libc.msgrcv(number, into, 100, 0, 0o4000)),
    ):
        if result != -1:
            found.append("%s %d" % (name, number))
for folder in ("/dev/shm", "/dev/mqueue"):
    found += [folder + "/" + name for name in os.listdir(folder)] if os.path.isdir(folder) else []
for name in ("own", "sem.own", "message"):
    if os.path.exists("/dev/shm/" + name):
        found.append(name)
for name, table in (("shm", "key"), ("sem", "key"), ("msg", "key")):
    found += open("/proc/sysvipc/" + name).read().splitlines()[1:]
print(found)
