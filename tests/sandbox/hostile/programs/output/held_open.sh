# does: ends while a daemon keeps printing
# expect: succeeded
# limits: {"output": 1000}
# stdout: "mine\n"
# truncated: "any"

setsid yes >&2 &
echo mine
