# does: writes displays by hand that are none, or not what they say
# expect: succeeded
# value: 7
# completed: true
# displays: 2
# displays_dropped: 17

import os


def part(mime, data):
    return bytes((len(mime),)) + mime + len(data).to_bytes(4, "big") + data


def show(body):
    os.write(3, b"D" + len(body).to_bytes(4, "big") + body)


good = part(b"text/plain", b"good")
show(good)
for body in (
    b"",
    b"\x00",
    b"\xff" * 100,
    good[:-1],
    good + b"\x00",
    good + good,
    b"".join(part(b"text/x%d" % number, b"") for number in range(1000)),
    part(b"../../../etc/passwd", b""),
    part(b"text/html\n\x1b[2J", b""),
    part(b"text/plain; charset=x", b""),
    part(b"TEXT/PLAIN", b""),
    part(b"t\xff/x", b""),
    part(b"text/html", b"\xff\xfe"),
    part(b"application/json", b"[" * 100_000),
    part(b"application/json", b"[" * 120 + b"]" * 120),
    part(b"application/json", b'{"a": 1e999}'),
    part(b"application/vnd.x+json", b"NaN"),
):
    show(body)
show(good)
7
