# does: fills the stacks of threads
# expect: out_of_memory
# limits: {"memory": "48MiB"}

import threading, time

threading.stack_size(64 << 20)


def fill():
    block = b'x' * (8 << 20)
    time.sleep(1000)
    return block


for _ in range(16):
    threading.Thread(target=fill).start()
