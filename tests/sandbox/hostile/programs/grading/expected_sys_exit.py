# does: exits well before it is judged, where a value is wanted
# expect: failed
# expect_value: true
# error: "no_value"
# value: null
# exit_code: 0
# completed: false

import sys

sys.exit(0)


def main():
    return 42
