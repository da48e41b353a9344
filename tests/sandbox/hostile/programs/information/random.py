# does: prints random numbers, to be the same as another job's
# expect: succeeded
# runs: 2
# differ: true

import os, random, tempfile, uuid

print(random.random(), random.getrandbits(64), os.urandom(8).hex(), uuid.uuid4(), hash("salt"), tempfile.mktemp())
