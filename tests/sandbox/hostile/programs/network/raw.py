# does: opens sockets and pairs of sockets that are not for programs
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import errno
import socket
from socket import AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM

FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
RDM, DCCP, PACKET = 4, 6, 10


def refusal(make, *what):
    try:
        made = make(*what)
    except OSError as error:
        return errno.errorcode[error.errno]
    for one in made if isinstance(made, tuple) else [made]:
        one.close()


# Without the filter, the kernel would report other errors for most of these, or load their modules.
for name, *what in [
    ('raw', AF_INET, SOCK_RAW, 1),
    ('raw IPv6', AF_INET6, SOCK_RAW, 58),
    ('packet', 17, SOCK_RAW, 0x300),
    ('packet by its old name', AF_INET, PACKET, 0x300),
    ('netlink', 16, SOCK_RAW, 0),
    ('audit', 16, SOCK_RAW, 9),
    ('vsock', 40, SOCK_STREAM, 0),
    ('crypto', 38, SOCK_SEQPACKET, 0),
    ('bluetooth', 31, SOCK_RAW, 1),
    ('can', 29, SOCK_RAW, 1),
    ('xdp', 44, SOCK_RAW, 0),
    ('tipc', 30, SOCK_RAW, 0),
    ('smc', 43, SOCK_STREAM, 0),
    ('sctp', AF_INET, SOCK_STREAM, 132),
    ('sctp by its packets', AF_INET6, SOCK_SEQPACKET, 0),
    ('dccp', AF_INET, DCCP, 33),
    ('dccp without its name', AF_INET6, DCCP | FLAGS, 0),
    ('reliable packets', AF_INET, RDM, 0),
    ('no type', AF_INET, 0, 0),
    ('l2tp', AF_INET, SOCK_DGRAM, 115),
    ('udplite', AF_INET6, SOCK_DGRAM | FLAGS, 136),
    ('mptcp', AF_INET, SOCK_STREAM, 262),
    ('ping', AF_INET, SOCK_DGRAM, 1),
    ('ping IPv6', AF_INET6, SOCK_DGRAM, 58),
]:
    answer = refusal(socket.socket, *what)
    if answer != 'EAFNOSUPPORT':
        print('got through:', name, answer)

for name, *what in [
    ('internet', AF_INET, SOCK_STREAM, 0),
    ('netlink', 16, SOCK_RAW, 0),
    ('tipc', 30, SOCK_SEQPACKET, 0),
    ('vsock', 40, SOCK_STREAM, 0),
    ('crypto', 38, SOCK_SEQPACKET, 0),
    ('bluetooth', 31, SOCK_SEQPACKET, 0),
]:
    answer = refusal(socket.socketpair, *what)
    if answer != 'EAFNOSUPPORT':
        print('got through as a pair:', name, answer)

for make, *what in [
    (socket.socket, AF_UNIX, SOCK_SEQPACKET, 0),
    (socket.socket, AF_INET, SOCK_STREAM | FLAGS, 6),
    (socket.socket, AF_INET, SOCK_DGRAM | FLAGS, 17),
    (socket.socket, AF_INET, SOCK_DGRAM, 0),
    (socket.socketpair, AF_UNIX, SOCK_DGRAM | FLAGS, 0),
]:
    answer = refusal(make, *what)
    if answer is not None:
        print('refused:', what, answer)
print('contained')
