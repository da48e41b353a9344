# does: leaves very many names deep below its working directory, for patterns of many depths
# expect: succeeded
# stdout: "contained\n"
# limits: {"scratch_inodes": 65536, "memory": "512MiB"}
# fetch_repeat: ["{**,**}/", 6, 32]
# gives_up: true

import os

for _ in range(3):
    os.mkdir("d")
    os.chdir("d")
for number in range(65_000):
    os.close(os.open("a" * 244 + "%06d" % number, os.O_CREAT | os.O_WRONLY))
print("contained")
