# does: announces a display of four gigabytes, and one that it never finishes
# expect: succeeded
# value: null
# completed: false
# displays: 1
# displays_dropped: 1

import os

display("before")
os.write(3, b"D\xff\xff\xff\xff" + bytes(100_000))
display("within the other")
7
