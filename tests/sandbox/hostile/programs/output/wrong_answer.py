# does: answers with the wrong types
# expect: succeeded
# value: null
# stdout: ""

import os

answer = b'{"value_json": 7, "exception": [1, 2], "end": "Exited", "clean": false}'
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"A" + len(answer).to_bytes(4, "big") + answer)
    except OSError:
        pass
os._exit(0)
