# does: fills its working directory with many files
# expect: scratch_limit
# limits: {"scratch": "2MiB"}

set -e
i=0
while :; do head -c 65536 /dev/zero > "$i"; i=$((i + 1)); done
