# does: exits well without any farewell, when it is asked
# expect: succeeded
# value: null
# exit_code: 0
# completed: false

import os


def main():
    os._exit(0)
