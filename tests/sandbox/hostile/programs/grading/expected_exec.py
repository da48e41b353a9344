# does: becomes another program that ends well, where a value is wanted
# expect: failed
# expect_value: true
# error: "no_value"
# value: null
# exit_code: 0
# completed: false

import os

os.execv("/bin/true", ["true"])
