# does: announces an answer of four gigabytes, and writes a good one after the length
# expect: succeeded
# value: null
# completed: false

import os

answer = b'{"value_json": "1", "completed": true}'
os.write(3, b"A\xff\xff\xff\xff")
os.write(3, b"A" + len(answer).to_bytes(4, "big") + answer)
7
