# does: changes modules and builtins for the next program
# expect: succeeded
# runs: 2
# stdout: "contained\n"

import builtins, json, os, random, sys

if getattr(json, "spoilt", False) or len([1]) != 1 or "spoilt" in sys.modules:
    print("got through")
random.seed(7)
print("contained", flush=True)
json.spoilt = True
json.dumps = json.loads = lambda *_: "spoilt"
sys.modules["spoilt"] = json
os.environ["SPOILT"] = "1"
sys.path.insert(0, "/tmp")
sys.setrecursionlimit(50)
builtins.len = lambda _: 7
