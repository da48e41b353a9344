# does: fails with an exception that fails when it is shown
# expect: failed

class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


raise Odd
