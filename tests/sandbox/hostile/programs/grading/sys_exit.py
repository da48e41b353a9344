# does: exits well before it is judged
# expect: succeeded
# value: null
# exit_code: 0
# completed: false

import sys

sys.exit(0)


def main():
    return 42
