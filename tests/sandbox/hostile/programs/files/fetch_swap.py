# does: a process that outlives the program swaps a fetched file for a link to the machine's, as fast as it can
# expect: succeeded
# fetch: ["still"]
# files: {"still": "mine"}
import os

open("still", "w").write("mine")
if os.fork() == 0:
    os.setsid()
    while True:
        os.symlink("/etc/passwd", "other")
        os.rename("other", "swapped")
        open("other", "w").write("mine")
        os.rename("other", "swapped")
