# State that a job on the container can see. It must be the same for every job; a difference is a
# trace of an earlier one.
import builtins, json, os, socket, sys


def lines(path):
    with open(path) as file:
        return file.read().splitlines()[1:]


def place(path):
    there = os.stat(path)
    space = os.statvfs(path)
    return [
        sorted(os.listdir(path)),
        oct(there.st_mode),
        there.st_uid in (0, os.getuid()),
        space.f_blocks - space.f_bfree,
        space.f_files - space.f_ffree,
    ]


def main():
    return {
        "places": {path: place(path) for path in ("/tmp", "/var/tmp", "/dev/shm", "/work")},
        "others": sorted(os.listdir("/run") + os.listdir("/dev/mqueue") + os.listdir("/home")),
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()] == [os.getpid()],
        "pid": os.getpid(),
        "ipc": [lines("/proc/sysvipc/" + name) for name in ("shm", "sem", "msg")],
        "sockets": [lines("/proc/net/" + name) for name in ("tcp", "tcp6", "udp", "unix")],
        "locks": [line.split()[1:4] for line in lines("/proc/locks")]
        if os.path.exists("/proc/locks")
        else [],
        "environment": dict(os.environ),
        "descriptors": sorted(os.listdir("/proc/self/fd"), key=int)[:4],
        "user": [os.getuid() == os.getgid() > 1000, os.getgroups()],
        "host": socket.gethostname(),
        "device": [oct(os.stat("/dev/null").st_mode), os.stat("/dev/null").st_rdev],
        "modules": sorted(name for name in sys.modules if "spoilt" in name),
        "builtins": [len([1, 2]), builtins.len is len, json.loads(json.dumps([1]))],
        "mounts": len(lines("/proc/self/mountinfo")),
    }
