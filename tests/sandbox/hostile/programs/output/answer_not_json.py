# does: answers with a value that is not JSON
# expect: succeeded
# value: null
# stdout: ""

import os

for descriptor in range(3, 64):
    try:
        os.write(descriptor, b'{"value_json": "{\\"id\\": ", "exception": null}')
    except OSError:
        pass
os._exit(0)
