# does: answers, and then writes many more answers and displays
# expect: succeeded
# value: 1
# completed: false
# displays: 0
# displays_dropped: 0

import os


def send(kind, body):
    os.write(3, kind + len(body).to_bytes(4, "big") + body)


send(b"A", b'{"value_json": "1"}')
send(b"A", b'{"value_json": "2", "completed": true}')
for _ in range(50):
    send(b"A", b'{"value_json": "3"}' + b" " * (1 << 20))
    send(b"D", b"\x0atext/plain\x00\x00\x00\x04late")
