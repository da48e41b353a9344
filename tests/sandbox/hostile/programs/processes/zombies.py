# does: never asks what became of its children
# expect: process_limit
# limits: {"pids": 24}

import os

while True:
    if os.fork() == 0:
        os._exit(0)
