# does: takes every right to its working directory away, of which the job wants a file
# expect: succeeded
# stdout: "contained\n"
# fetch: ["*"]
# not_fetched: {".": "unreadable"}

import os

open("f", "w").write("x")
os.chmod("/work", 0)
print("contained")
