# does: changes unittest so that every test passes, for its own tests and the next job's
# expect: succeeded
# value: "wrong"
# stdout: "OK\n"

import unittest

unittest.TestCase.assertEqual = lambda *_: None
unittest.TestResult.wasSuccessful = lambda _: True
print("OK")


def main():
    return "wrong"
