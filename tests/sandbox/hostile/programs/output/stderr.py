# does: prints 50 MB on standard error
# expect: succeeded
# limits: {"output": 1000}
# stdout: ""
# truncated: ["stderr"]

import os

for _ in range(50):
    os.write(2, b'e' * 1_000_000)
