# does: looks at its environment and its words
# expect: succeeded
# stdout: "['HOME', 'LANG', 'LOGNAME', 'PATH', 'TMPDIR', 'USER']\n[]\n"

import os

print(sorted(os.environ))
print([word for word in open("/proc/self/cmdline").read().split("\0") if "SANDHOG" in word or "redis" in word])
