# does: asks the kernel to be killed last
# expect: out_of_memory
# limits: {"memory": "48MiB"}
# stdout: ""

for value in ("-1000", "-1"):
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(value.encode())
        print("got through:", value)
    except OSError:
        pass
hoard = []
while True:
    hoard.append(b'x' * (1 << 20))
