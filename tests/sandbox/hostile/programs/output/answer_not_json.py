# does: answers with a value that is not JSON
# expect: succeeded
# value: null
# stdout: ""

import os

answer = b'{"value_json": "{\\"id\\": ", "exception": null}'
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"A" + len(answer).to_bytes(4, "big") + answer)
    except OSError:
        pass
os._exit(0)
