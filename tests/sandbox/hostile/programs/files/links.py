# does: links to what is not its own, out of its scratch space
# expect: succeeded
# stdout: "contained\n"

import os

for name, attempt in {
    'hard link to passwd': lambda: os.link('/etc/passwd', '/tmp/passwd'),
    'hard link to runner': lambda: os.link('/usr/lib/sandhog/runner', '/tmp/runner'),
    'through a link': lambda: (os.symlink('/etc/shadow', '/tmp/shadow'), open('/tmp/shadow').read()),
    'dots': lambda: open('../../../../../etc/shadow').read(),
    'through proc': lambda: open('/proc/self/root/etc/shadow').read(),
    'write through a link': lambda: (os.symlink('/etc/x', '/tmp/x'), open('/tmp/x', 'w')),
}.items():
    try:
        attempt()
        print('got through:', name)
    except OSError:
        pass
print('contained')
