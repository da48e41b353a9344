# does: prints 2 MB and ends well
# expect: succeeded
# limits: {"output": 1000000}
# stdout_repeat: ["0123456789", 100000]
# truncated: ["stdout"]

import sys

sys.stdout.write('0123456789' * 200_000)
