# does: runs a program from shared memory
# expect: succeeded
# stdout: "contained\n"

import os

for name, attempt in {
    'exec': lambda: (__import__('shutil').copy('/bin/true', '/dev/shm/true'), os.chmod('/dev/shm/true', 0o755), os.execv('/dev/shm/true', ['true'])),
}.items():
    try:
        attempt()
        print('got through:', name)
    except OSError:
        pass
print('contained')
