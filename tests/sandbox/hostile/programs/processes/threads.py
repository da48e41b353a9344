# does: starts threads until it may not
# expect: process_limit
# limits: {"pids": 24}

import threading, time

while True:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
