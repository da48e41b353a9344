# does: puts something else in the place of /dev/null
# expect: succeeded
# stdout: "contained\n"

import os

for name, attempt in {
    'remove': lambda: os.unlink('/dev/null'),
    'rename': lambda: os.rename('/dev/null', '/dev/x'),
    'rename over': lambda: (open('/tmp/x', 'w').close(), os.rename('/tmp/x', '/dev/null')),
    'mode': lambda: os.chmod('/dev/null', 0),
    'link': lambda: os.symlink('/etc', '/dev/y'),
}.items():
    try:
        attempt()
        print('got through:', name)
    except OSError:
        pass
print('contained')
