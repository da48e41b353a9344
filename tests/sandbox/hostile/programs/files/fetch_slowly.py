# does: leaves very many names for patterns that take very long to compare, which the runner does
# expect: succeeded
# stdout: "contained\n"
# limits: {"scratch_inodes": 65536, "memory": "512MiB"}
# fetch_repeat: ["{*a,*a}", 6, 32]
# gives_up: true

import os

for number in range(65_000):
    os.close(os.open("a" * 244 + "%06d" % number, os.O_CREAT | os.O_WRONLY))
print("contained")
