# does: fails, and exits well when that is about to be printed: it has been told by then
# expect: failed
# value: null
# exit_code: 0
# completed: false

import os, sys

sys.excepthook = lambda *_: os._exit(0)
sys.unraisablehook = sys.excepthook
raise ValueError("wrong")
