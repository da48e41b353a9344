# does: doubles a shell variable
# expect: out_of_memory
# limits: {"memory": "48MiB", "timeout_ms": 20000}

x=xxxxxxxxxxxxxxxx
while :; do x=$x$x; done
