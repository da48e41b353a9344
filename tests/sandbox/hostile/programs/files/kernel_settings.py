# does: changes the kernel's settings
# expect: succeeded
# stdout: "contained\n"
# wall: "proc"

import os

def magic_key():
    # If the kernel has such keys, the null device covers them, so a write has no effect.
    if os.stat('/proc/sysrq-trigger').st_rdev != os.makedev(1, 3):
        open('/proc/sysrq-trigger', 'wb', buffering=0).write(b'h')
    else:
        raise PermissionError

for name, attempt in {
    'sys/kernel/core_pattern': lambda: open('/proc/sys/kernel/core_pattern', 'wb', buffering=0).write(b'|/bin/sh'),
    'sys/kernel/modprobe': lambda: open('/proc/sys/kernel/modprobe', 'wb', buffering=0).write(b'|/bin/sh'),
    'sys/kernel/hostname': lambda: open('/proc/sys/kernel/hostname', 'wb', buffering=0).write(b'|/bin/sh'),
    'sys/vm/overcommit_memory': lambda: open('/proc/sys/vm/overcommit_memory', 'wb', buffering=0).write(b'|/bin/sh'),
    'sys/fs/binfmt_misc/register': lambda: open('/proc/sys/fs/binfmt_misc/register', 'wb', buffering=0).write(b'|/bin/sh'),
    'sys/net/ipv4/ip_forward': lambda: open('/proc/sys/net/ipv4/ip_forward', 'wb', buffering=0).write(b'|/bin/sh'),
    'sys/kernel/shmmax': lambda: open('/proc/sys/kernel/shmmax', 'wb', buffering=0).write(b'|/bin/sh'),
    'sysrq-trigger': magic_key,
    'mtrr': lambda: open('/proc/mtrr', 'w'),
}.items():
    try:
        attempt()
        print('got through:', name)
    except OSError:
        pass
print('contained')
