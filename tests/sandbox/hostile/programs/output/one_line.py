# does: prints one line of 10 MB
# expect: succeeded
# limits: {"output": 100000}
# stdout_repeat: ["x", 100000]
# truncated: ["stdout"]

import sys

sys.stdout.write('x' * 10_000_000 + '\n')
