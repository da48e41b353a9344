# does: leaves files of every kind wherever it can, some unreadable
# expect: succeeded
# stdout: "contained\n"

for place in /tmp /var/tmp /dev/shm /work; do
    mkdir -p "$place/a/b" && echo secret > "$place/a/b/c"
    ln -s /etc/passwd "$place/link"; ln "$place/a/b/c" "$place/hard"; mkfifo "$place/fifo"
    echo '#!/bin/sh' > "$place/program"; chmod 6755 "$place/program"
    touch "$place/.hidden" "$place/-rf" "$place/"$'\n'
    chmod 000 "$place/a"
done 2>/dev/null
chmod 000 /work
echo contained
