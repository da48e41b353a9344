# does: floods both streams from two threads
# expect: output_limit
# limits: {"output": 1000, "output_total": "4MiB"}
# stdout_repeat: ["x", 1000]
# truncated: ["stdout", "stderr"]

import os, threading


def flood(descriptor):
    while True:
        os.write(descriptor, b"x" * 65536)


threading.Thread(target=flood, args=(1,)).start()
flood(2)
