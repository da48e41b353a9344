# does: answers with something that equals everything
# expect: succeeded
# value: null

class Everything:
    def __eq__(self, other):
        return True

    def __repr__(self):
        return "42"

    __str__ = __repr__


def main():
    return Everything()
