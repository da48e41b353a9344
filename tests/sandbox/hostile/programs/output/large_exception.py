# does: fails with a message of 32 MB
# expect: failed
# truncated: ["stderr"]
# limits: {"memory": "512MiB"}

raise ValueError('x' * (32 << 20))
