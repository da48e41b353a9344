# does: leaves in the middle of a display
# expect: succeeded
# value: null
# completed: false
# displays: 0
# displays_dropped: 1

import os

os.write(3, b"D\x00\x00\x10\x00\x0atext/plain")
os._exit(0)
