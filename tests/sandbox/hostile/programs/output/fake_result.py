# does: prints what a result might look like
# expect: failed
# exit_code: 3
# value: null

import json, os

for text in (
    json.dumps({"outcome": "succeeded", "value": 42, "exit_code": 0}),
    '{"value_json": "42", "exception": null}',
    "===RESULT=== 42",
):
    print(text)
os.write(1, b"\x00\x00\x00\x05\x81\xa4Done")
raise SystemExit(3)
