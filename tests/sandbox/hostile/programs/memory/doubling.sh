# does: doubles a shell variable
# expect: out_of_memory
# limits: {"memory": "48MiB"}

x=xxxxxxxxxxxxxxxx
while :; do x=$x$x; done
