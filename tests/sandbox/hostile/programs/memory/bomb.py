# does: unpacks a small archive that is large inside
# expect: out_of_memory
# limits: {"memory": "48MiB"}

import zlib

packer = zlib.compressobj(9)
packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
plain = zlib.decompress(packed)
