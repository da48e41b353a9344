# does: ends its process while its value is shown
# expect: succeeded
# exit_code: 0
# value: null
# completed: false
# displays: 0

import os


class Last:
    def _repr_html_(self):
        os._exit(0)

    def tolist(self):
        return 7


Last()
