# does: starts every set-user-id and set-group-id program of the image
# expect: succeeded
# stdout: "contained\n"

while read -r program; do
    id=$(timeout 1 "$program" -c 'id -u' </dev/null 2>/dev/null)
    [ "$id" != 0 ] || echo "got through: $program"
done < <(find / -xdev -perm /6000 -type f 2>/dev/null)
echo contained
