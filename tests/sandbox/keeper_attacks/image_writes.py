# Changes files of the image, which all sandboxes of the keeper share.
import ctypes, mmap, os

libc = ctypes.CDLL(None, use_errno=True)
found = []
folders = ("/usr/lib/sandhog", "/usr/bin", "/etc", "/usr/lib/python3", "/lib", "/", "/work/..")
files = [
    os.path.join(folder, name) for folder in folders for name in sorted(os.listdir(folder))[:40]
]
files += [
    "/usr/lib/sandhog/runner",
    "/usr/lib/sandhog/harness.py",
    "/usr/bin/python3",
    "/proc/self/exe",
    "/etc/passwd",
]


def map_and_write(path):
    with open(path, "r+b") as file:
        mmap.mmap(file.fileno(), 1)[0:1] = b"x"


changes = {
    "open": lambda path: os.close(os.open(path, os.O_WRONLY)),
    "append": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)),
    "truncate": lambda path: os.truncate(path, 0),
    "map": map_and_write,
    "mode": lambda path: os.chmod(path, 0o777),
    "owner": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "time": lambda path: os.utime(path),
    "remove": os.remove,
    "rename": lambda path: os.rename(path, path + "-old"),
    "link": lambda path: os.link(path, path + "-new"),
    "attribute": lambda path: os.setxattr(path, "user.own", b"x"),
    "lease": lambda path: __import__("fcntl").fcntl(os.open(path, os.O_RDONLY), 1024, 1),
}
for path in files:
    if not os.path.isfile(path):
        continue
    for name, change in changes.items():
        try:
            change(path)
            found.append("%s %s" % (name, path))
        except OSError:
            pass
for folder in folders[:-1]:
    for name, make in {
        "file": lambda path: open(path, "w"),
        "folder": os.mkdir,
        "link": lambda path: os.symlink("/tmp", path),
        "node": os.mkfifo,
    }.items():
        try:
            make(folder + "/attack")
            found.append("%s in %s" % (name, folder))
        except OSError:
            pass
print(found)
