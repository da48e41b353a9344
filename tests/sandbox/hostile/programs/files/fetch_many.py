# does: leaves more files than may be brought back
# expect: succeeded
# limits: {"fetch_files": 2}
# fetch: ["f?"]
# files: {"f0": "", "f1": ""}
# not_fetched: {"f2": "too_many", "f3": "too_many"}
for n in range(4):
    open(f"f{n}", "w")
