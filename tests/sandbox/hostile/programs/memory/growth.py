# does: takes a little more, again and again
# expect: out_of_memory
# limits: {"memory": "48MiB"}
# peak_at_least: 41943040

hoard = []
while True:
    hoard.append(b'x' * 10_000)
