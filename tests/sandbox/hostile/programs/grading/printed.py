# does: prints that all tests passed, and fails
# expect: failed
# value: null
# stdout: "all tests passed\n"

import sys

print('all tests passed')
print('{"outcome": "succeeded", "value": 42}', file=sys.stderr)
raise AssertionError
