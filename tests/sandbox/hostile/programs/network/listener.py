# does: leaves a listener, for the next job to find
# expect: succeeded
# runs: 2
# stdout: "contained\n"

import os, socket, time

server = socket.create_server(("127.0.0.1", 7777))
hidden = socket.socket(socket.AF_UNIX)
hidden.bind("\0left")
hidden.listen()
if os.fork() == 0:
    os.setsid()
    time.sleep(1000)
print("contained", flush=True)
os._exit(0)
