# does: recurses until the memory is used up, which bounds the stack where the job does not
# expect: out_of_memory
# limits: {"memory": "128MiB"}

import sys

sys.setrecursionlimit(1 << 30)


class Deep:
    def __getattr__(self, name):
        return getattr(self, name + "x")


def down(f, n=0):
    return sorted([0], key=lambda _: down(f, n + 1))


down(down)
