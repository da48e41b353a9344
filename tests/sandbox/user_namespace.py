# Starts a program as root of a user namespace, as an engine does that gives each container users of
# its own. Runs as root of a container that may make mounts.
#
# Arguments: the number of ids, "delegated" or "not-delegated" for the cgroups, the program and its
# arguments.
import ctypes, os, sys

FIRST_ID = 100_000
# KILL, SETGID, SETUID, SETPCAP, NET_ADMIN, SYS_CHROOT, SYS_ADMIN.
CAPABILITIES = (5, 6, 7, 8, 12, 18, 21)
ROOT = "/sys/fs/cgroup"
BIND = 4096
# The namespaces for mounts, cgroups, names, IPC, users, processes and networks.
NAMESPACES = (
    0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
)

libc = ctypes.CDLL(None, use_errno=True)


def checked(result, step):
    if result == -1:
        raise OSError(ctypes.get_errno(), step)


def mount(source, target, kind, flags=0):
    done = libc.mount(
        source and source.encode(), target.encode(), kind and kind.encode(), flags, None
    )
    checked(done, "mount " + target)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def enter_cgroups(delegated):
    """Makes the cgroup of the container below that of this process, enters it and mounts it."""
    is_unified = os.path.exists(ROOT + "/cgroup.controllers")
    names = ("",) if is_unified else ("memory", "pids", "cpu", "cpuacct")
    for group in sorted({os.path.realpath(ROOT + "/" + name) for name in names}):
        # Remounts it writable, without set-user-id programs, devices and programs.
        mount(None, group, None, BIND | 0x20 | 0xE)
        own = group + "/container"
        os.mkdir(own)
        write(own + "/cgroup.procs", "0")
        if is_unified:
            write(group + "/cgroup.subtree_control", "+memory +pids +cpu")
        if delegated:
            for name in (
                "",
                "/cgroup.procs",
                "/tasks",
                "/cgroup.threads",
                "/cgroup.subtree_control",
            ):
                if os.path.exists(own + name):
                    os.chown(own + name, FIRST_ID, FIRST_ID)
        mount(own, group, None, BIND)


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


count, delegation, *program = sys.argv[1:]
checked(libc.unshare(0x00020000), "make a mount namespace")
checked(libc.mount(b"none", b"/", None, 0x44000, None), "make the mounts private")
# Mounts that come from outside of the user namespace would keep their directory from being a layer
# of an overlay. Those of an engine belong to the container's user namespace.
for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
    libc.umount2(path.encode(), 2)
enter_cgroups(delegation == "delegated")
(entered, have_entered), (mapped, have_mapped) = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(entered, 1)
    for kind in ("uid", "gid"):
        write("/proc/%d/%s_map" % (child, kind), "0 %d %s" % (FIRST_ID, count))
    os.write(have_mapped, b"x")
    sys.exit(wait(child))
checked(libc.unshare(NAMESPACES), "make the namespaces")
os.write(have_entered, b"x")
os.read(mapped, 1)
os.setgroups([])
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
first = os.fork()
if first:
    sys.exit(wait(first))
mount("proc", "/proc", "proc")
mount("tmpfs", "/tmp", "tmpfs")
for capability in range(64):
    if capability not in CAPABILITIES:
        libc.prctl(24, capability, 0, 0, 0)
checked(libc.prctl(38, 1, 0, 0, 0), "set no-new-privileges")
os.execv(program[0], program)
