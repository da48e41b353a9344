# does: leaves directories that can be entered and not listed, or listed and not entered
# expect: succeeded
# stdout: "contained\n"
# fetch: ["**"]
# not_fetched: {"blind": "unreadable", "closed": "unreadable", "listed/f": "unreadable"}

import os

for name, mode in [("blind", 0o300), ("closed", 0), ("listed", 0o400)]:
    os.mkdir(name)
    open(name + "/f", "w").write("x")
    os.chmod(name, mode)
print("contained")
