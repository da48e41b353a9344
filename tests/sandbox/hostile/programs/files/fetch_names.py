# does: fetches files whose names are no text, hold control characters or look like paths and patterns
# expect: succeeded
# fetch: ["*", ".*"]
# files: {"**": "2", "..hidden": "4", "a\u001b[31m": "1", "{a,b}": "3"}
# not_fetched: {"bad\ufffd": "name"}
import os

for name, text in ((b"a\x1b[31m", "1"), (b"**", "2"), (b"{a,b}", "3"), (b"..hidden", "4"), (b"bad\xff", "5")):
    os.write(os.open(name, os.O_WRONLY | os.O_CREAT), text.encode())
