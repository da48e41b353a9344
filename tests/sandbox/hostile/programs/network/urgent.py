# does: sends and receives urgent data, whose code for Unix sockets is new and had a use after free
# expect: succeeded
# stdout: "contained\n"
# wall: "seccomp"

import errno, socket

one, other = socket.socketpair()
listener = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listener.getsockname())
far, _ = listener.accept()
for name, sender, receiver in [("unix", one, other), ("tcp", near, far)]:
    sender.send(b"plain")
    for what, call in [
        ("send", lambda: sender.send(b"!", socket.MSG_OOB)),
        ("sendmsg", lambda: sender.sendmsg([b"!"], [], socket.MSG_OOB)),
        ("recv", lambda: receiver.recv(1, socket.MSG_OOB | socket.MSG_DONTWAIT)),
        ("recvmsg", lambda: receiver.recvmsg(1, 0, socket.MSG_OOB | socket.MSG_PEEK)),
    ]:
        try:
            call()
            print("got through:", name, what)
        except OSError as error:
            if error.errno != errno.EINVAL:
                print("got another answer:", name, what, error)
    if receiver.recv(100) != b"plain":
        print("what is not urgent did not arrive:", name)
print("contained")
