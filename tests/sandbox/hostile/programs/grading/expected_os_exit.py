# does: exits well without any farewell where a value is wanted
# expect: failed
# expect_value: true
# error: "no_value"
# value: null
# exit_code: 0
# completed: false

import os


def main():
    os._exit(0)
