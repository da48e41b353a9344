# does: reads what is not for it
# expect: succeeded
# stdout: "contained\n"

import os

for name, attempt in {
    'shadow': lambda: open('/etc/shadow').read(),
    'gshadow': lambda: open('/etc/gshadow').read(),
    "init's environment": lambda: open('/proc/1/environ').read(),
    "init's memory": lambda: open('/proc/1/mem', 'rb').read(1),
    "init's root": lambda: os.listdir('/proc/1/root'),
    "init's descriptors": lambda: os.listdir('/proc/1/fd'),
    "root's home": lambda: os.listdir('/root'),
    'kernel memory': lambda: open('/dev/mem', 'rb').read(1),
    'kernel log': lambda: open('/dev/kmsg', 'rb').read(1),
    'engine': lambda: os.stat('/var/run/docker.sock'),
    'engine': lambda: os.stat('/run/docker.sock'),
    "engine's files": lambda: os.listdir('/var/lib/docker'),
    "engine's mark": lambda: open('/.dockerenv', 'w'),
}.items():
    try:
        attempt()
        print('got through:', name)
    except OSError:
        pass
print('contained')
