# does: takes a gibibyte at once
# expect: out_of_memory
# limits: {"memory": "48MiB"}
# peak_at_least: 41943040

block = b'x' * (1 << 30)
