# does: leaves a file under more directories than a path may name, to exhaust a walker
# expect: succeeded
# fetch: ["**/leaf", "top"]
# files: {"top": "x"}
# not_fetched: {"d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d": "too_deep"}
import os

open("top", "w").write("x")
for _ in range(1000):
    os.mkdir("d")
    os.chdir("d")
open("leaf", "w").write("x")
