# does: leaves in the middle of the header of its answer
# expect: succeeded
# value: null
# completed: false
# displays: 0
# displays_dropped: 0

import os

os.write(3, b"A\x00\x00")
os._exit(0)
