# does: prints for ever
# expect: output_limit
# limits: {"output": 4096, "output_total": "256KiB"}
# stdout_repeat: ["y\n", 2048]
# truncated: ["stdout"]

yes
