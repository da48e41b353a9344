# Walks /proc for other processes, for files of the keeper, and for settings of the machine.
import os

found = []


def write(path, text):
    with open(path, "wb", buffering=0) as file:
        file.write(text)


own = os.getpid()
found += ["process " + name for name in os.listdir("/proc") if name.isdigit() and int(name) != own]
for pid in range(1, 3000):
    for name in ("", "/root", "/cwd", "/exe", "/fd", "/ns/pid", "/environ", "/maps"):
        path = "/proc/%d%s" % (pid, name)
        try:
            if pid != own:
                os.stat(path)
                os.listdir(path) if name == "/fd" else os.readlink(path)
                found.append(path)
        except OSError:
            pass
settings = (
    "kernel/core_pattern",
    "kernel/pid_max",
    "kernel/ns_last_pid",
    "kernel/shmmax",
    "kernel/msgmni",
)
settings += (
    "fs/mqueue/queues_max",
    "fs/pipe-max-size",
    "vm/overcommit_memory",
    "net/unix/max_dgram_qlen",
)
paths = ["/proc/sys/" + name for name in settings]
for path in paths + [
    "/proc/sysrq-trigger",
    "/proc/self/uid_map",
    "/proc/self/setgroups",
    "/proc/1/oom_score_adj",
]:
    try:
        write(path, b"0")
        found.append("wrote " + path)
    except OSError:
        pass
try:
    write("/proc/self/oom_score_adj", b"-1000")
    found.append("cannot be killed for memory")
except OSError:
    pass
if os.listdir("/proc/self/root/../..") != os.listdir("/"):
    found.append("above the root")
print(found)
