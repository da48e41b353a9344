# does: leaves as many daemons as it may have
# expect: succeeded
# limits: {"pids": 24}
# stdout: "contained\n"

for _ in {1..20}; do setsid sleep 1000 & done
echo contained
