# does: asks who and where it is
# expect: succeeded
# stdout: "sandbox sandbox True [] /work sandbox\n"
# wall: "namespaces"

import getpass, os, socket

print(socket.gethostname(), getpass.getuser(), os.getuid() == os.getgid() > 1000, os.getgroups(), os.getcwd(), os.uname().nodename)
