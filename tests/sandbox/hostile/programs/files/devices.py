# does: makes devices, and opens those of the host
# expect: succeeded
# stdout: "contained\n"

import os

for name, attempt in {
    'disk': lambda: os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0)),
    'memory': lambda: os.mknod('/tmp/mem', 0o20666, os.makedev(1, 1)),
    'null': lambda: os.mknod('/tmp/null', 0o20666, os.makedev(1, 3)),
    'in /dev': lambda: os.mknod('/dev/x', 0o100666),
    'sda': lambda: open('/dev/sda', 'rb'),
    'vda': lambda: open('/dev/vda', 'rb'),
    'mem': lambda: open('/dev/mem', 'rb'),
    'kvm': lambda: open('/dev/kvm', 'rb'),
    'fuse': lambda: open('/dev/fuse', 'rb'),
    'loop': lambda: open('/dev/loop-control', 'rb'),
    'console': lambda: open('/dev/console', 'rb'),
}.items():
    try:
        attempt()
        print('got through:', name)
    except OSError:
        pass
print('contained')
