# does: dumps core
# expect: failed
# signal: "SIGABRT"
# stdout: ""

import os

os.abort()
