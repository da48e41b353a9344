# does: makes a tree of two thousand levels
# expect: succeeded
# stdout: "contained\n"

import os

for _ in range(2000):
    os.mkdir("d")
    os.chdir("d")
open("x" * 255, "w").close()
print("contained")
