# does: shows a megabyte as often as it can
# expect: timed_out
# limits: {"timeout_ms": 2000}
# displays: 3

while True:
    display({"image/png": bytes(1 << 20)}, raw=True)
