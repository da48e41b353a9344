# does: takes IPv6 flow labels, of which there is one count for the whole machine
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import errno, socket, struct

IPV6_FLOWLABEL_MGR = 32
taken = 0
one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for label in range(1, 4000):
    address = socket.inet_pton(socket.AF_INET6, "::1")
    wish = address + struct.pack("!I", label) + struct.pack("=BBHHHI", 0, 255, 3, 600, 600, 0)
    try:
        one.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, wish)
        taken += 1
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOPROTOOPT):
            print("got another answer:", error)
            break
print("contained" if taken == 0 else f"got through: {taken} labels")
