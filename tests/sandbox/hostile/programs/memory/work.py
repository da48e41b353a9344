# does: fills /work/full, which is memory
# expect: out_of_memory
# limits: {"memory": "48MiB", "scratch": "256MiB"}

with open('/work/full', 'wb') as file:
    while True:
        file.write(bytes(1 << 20))
