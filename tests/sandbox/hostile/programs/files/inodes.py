# does: makes files until it may not
# expect: scratch_limit
# limits: {"scratch_inodes": 100}
# wall: "inodes"

n = 0
while True:
    open(f'/tmp/{n}', 'w').close()
    n += 1
