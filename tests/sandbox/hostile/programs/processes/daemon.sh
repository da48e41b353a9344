# does: leaves a daemon
# expect: succeeded
# stdout: "contained\n"

setsid bash -c 'while :; do sleep 0.01; touch /tmp/alive; done' </dev/null >/dev/null 2>&1 &
echo contained
