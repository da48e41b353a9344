# does: has a file fetched that claims more bytes than may be brought back, and takes no room
# expect: succeeded
# limits: {"fetch_bytes": 1000, "scratch": "256MiB"}
# fetch: ["*"]
# files: {"small": "x"}
# not_fetched: {"sparse": "too_large"}
import os

os.truncate(os.open("sparse", os.O_RDWR | os.O_CREAT), 200 << 20)
open("small", "w").write("x")
