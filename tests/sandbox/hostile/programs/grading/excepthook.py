# does: fails, and exits well when that is about to be said: without a value, as any early exit
# expect: succeeded
# value: null
# exit_code: 0

import os, sys

sys.excepthook = lambda *_: os._exit(0)
sys.unraisablehook = sys.excepthook
raise ValueError("wrong")
