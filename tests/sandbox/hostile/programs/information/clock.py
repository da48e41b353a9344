# does: sets the clock and reads the kernel's log
# expect: succeeded
# stdout: "contained\n"

import os
import time

for name, attempt in {
    'clock': lambda: time.clock_settime(time.CLOCK_REALTIME, 0),
    'log': lambda: open('/dev/kmsg').read(1),
    'log by proc': lambda: open('/proc/kmsg').read(1) or os.open('/nothing', 0),
}.items():
    try:
        attempt()
        print('got through:', name)
    except OSError:
        pass
print('contained')
