# does: matches a pattern that backtracks for ever, inside one call of C
# expect: timed_out
# limits: {"timeout_ms": 300}

import re

re.match('(a+)+$', 'a' * 64 + 'b')
