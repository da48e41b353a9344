# does: recurses until the stack is used up
# expect: failed
# limits: {"memory": "128MiB", "stack": "8MiB"}
# signal: "SIGSEGV"
# error: "stack_limit"

import sys

sys.setrecursionlimit(1 << 30)


class Deep:
    def __getattr__(self, name):
        return getattr(self, name + "x")


def down(f, n=0):
    return sorted([0], key=lambda _: down(f, n + 1))


down(down)
