# does: fails, and exits well on the way out
# expect: failed

import atexit, os

atexit.register(os._exit, 0)
raise ValueError('wrong')
