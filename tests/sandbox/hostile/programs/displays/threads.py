# does: goes on showing things from threads, from a child and from a handler while it answers and ends
# expect: succeeded
# value: 7
# completed: true
# displays: "any"

import os, signal, threading


def show_on():
    while True:
        display("x" * 5000)


signal.signal(signal.SIGALRM, lambda *_: display("from a handler"))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for _ in range(4):
    threading.Thread(target=show_on, daemon=True).start()
child = os.fork()
if child == 0:
    for _ in range(1000):
        display("from a child")
    os._exit(0)
os.waitpid(child, 0)
for number in range(1000):
    display(number)
signal.setitimer(signal.ITIMER_REAL, 0)
7
