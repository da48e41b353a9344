# does: connects to the host's sockets that have no file
# expect: succeeded
# stdout: "contained\n"
# wall: "network"

import socket

found = [line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if line.split()[-1].startswith(("@", "/"))]
if found:
    print("got through:", found)
for name in ("\0/containerd-shim", "\0/org/kernel/udev/udevd", "\0/tmp/.X11-unix/X0", "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/systemd/private"):
    with socket.socket(socket.AF_UNIX) as out:
        try:
            out.connect(name)
            print("got through:", name)
        except OSError:
            pass
print("contained")
