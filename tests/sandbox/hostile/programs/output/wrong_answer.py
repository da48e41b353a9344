# does: answers with the wrong types
# expect: succeeded
# value: null
# stdout: ""

import os

for descriptor in range(3, 64):
    try:
        os.write(descriptor, b'{"value_json": 7, "exception": [1, 2], "end": "Exited", "clean": false}')
    except OSError:
        pass
os._exit(0)
