# does: leaves FIFOs, sockets and files without rights to block or confuse the fetching process
# expect: succeeded
# fetch: ["*"]
# files: {"real": "x"}
# not_fetched: {"fifo": "not_a_file", "secret": "unreadable", "socket": "not_a_file"}
import os
import socket

os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
open("secret", "w").write("x")
os.chmod("secret", 0)
open("real", "w").write("x")
