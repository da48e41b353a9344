# does: fills its scratch space
# expect: scratch_limit
# limits: {"scratch": "2MiB"}
# wall: "scratch"

with open('/tmp/full', 'wb') as file:
    while True:
        file.write(bytes(1 << 16))
