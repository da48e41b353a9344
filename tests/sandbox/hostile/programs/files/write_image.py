# does: writes, renames, removes and links in the image
# expect: succeeded
# stdout: "contained\n"

import os

for name, attempt in {
    'write /usr': lambda: open('/usr/x', 'w'),
    'write /etc': lambda: open('/etc/x', 'w'),
    'write /': lambda: open('/x', 'w'),
    'runner': lambda: open('/usr/lib/sandhog/runner', 'r+b'),
    'harness': lambda: open('/usr/lib/sandhog/harness.py', 'a'),
    'append passwd': lambda: open('/etc/passwd', 'a'),
    'remove': lambda: os.unlink('/etc/passwd'),
    'rename': lambda: os.rename('/etc', '/etcetera'),
    'mode': lambda: os.chmod('/usr', 0o777),
    'owner': lambda: os.chown('/usr', os.getuid(), os.getgid()),
    'directory': lambda: os.mkdir('/usr/x'),
    'link': lambda: os.symlink('/tmp', '/usr/x'),
    'preload': lambda: open('/etc/ld.so.preload', 'w'),
    'library': lambda: open('/usr/lib/python3.11/json/__init__.py', 'a'),
    'cache': lambda: open('/usr/lib/python3.11/x.pyc', 'w'),
    'site': lambda: os.makedirs('/usr/local/lib/python3.11/dist-packages/x'),
}.items():
    try:
        attempt()
        print('got through:', name)
    except OSError:
        pass
print('contained')
