# does: answers with a number that is not what it says
# expect: succeeded
# value: [7]

class Number(int):
    def __eq__(self, other):
        return True

    def __repr__(self):
        return "42"

    __str__ = __repr__


def main():
    return [Number(7)]
