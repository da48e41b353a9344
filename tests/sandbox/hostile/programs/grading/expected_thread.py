# does: exits well from a thread while it is judged, where a value is wanted
# expect: failed
# expect_value: true
# error: "no_value"
# value: null
# exit_code: 0
# completed: false

import os, threading


def main():
    threading.Thread(target=os._exit, args=(0,)).start()
    while True:
        pass
