# does: prints half a character at the cap
# expect: succeeded
# limits: {"output": 2}
# stdout: {"base64": "YcM="}
# truncated: ["stdout"]

import os

os.write(1, 'aé'.encode() * 2)
