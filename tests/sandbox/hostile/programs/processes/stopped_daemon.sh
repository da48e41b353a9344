# does: leaves a stopped daemon
# expect: succeeded
# stdout: "contained\n"

setsid sleep 1000 &
kill -STOP $!
echo contained
