# Writes to each descriptor that it has, sends its own along, and closes all of them, in case one of
# them leads to the zygote, the runner or the keeper.
import array, os, socket, stat, struct, sys

found = []
sockets = []
kinds = {}
for number in range(0, 256):
    try:
        kinds[number] = stat.S_IFMT(os.fstat(number).st_mode)
    except OSError:
        pass
for number, kind in kinds.items():
    if number > 3:
        found.append("descriptor %d" % number)
    if kind == stat.S_IFSOCK:
        sockets.append(socket.socket(fileno=os.dup(number)))
    for flags in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY):
        try:
            again = os.open("/proc/self/fd/%d" % number, flags)
            os.set_blocking(again, False)
            if number not in (0, 1, 2):
                found.append("opened %d again" % number)
            os.close(again)
        except OSError:
            pass
many = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(100)])
for one in sockets:
    one.setblocking(False)
    for _ in range(200):
        try:
            # A message of a harness of an unknown kind, with a hundred descriptors.
            one.sendmsg(
                [b"?" + struct.pack(">I", 1) + b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)]
            )
        except OSError:
            break
    try:
        cred = struct.pack("3i", 1, 0, 0)
        one.sendmsg([b"x"], [(socket.SOL_SOCKET, 2, cred)])
        found.append("sent as root")
    except OSError:
        pass
sys.stdout.write(repr(found) + "\n")
sys.stdout.flush()
os.closerange(3, 1024)
os._exit(0)
