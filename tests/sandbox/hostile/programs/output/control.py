# does: prints NUL, escapes of a terminal and an empty line
# expect: succeeded
# stdout: "\u0000\u001b[2J\u001b]0;title\u0007\r\n\n"

import os

os.write(1, b'\0\x1b[2J\x1b]0;title\x07\r\n\n\x7f')
