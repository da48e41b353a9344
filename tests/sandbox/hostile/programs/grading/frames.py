# does: looks for the tests in frames, words, modules and memory
# expect: succeeded
# value: false

import gc, sys


def main():
    seen = [repr(sys.argv), repr(sys.modules.get("__main__"))]
    frame = sys._getframe()
    while frame:
        seen += [repr(value) for value in frame.f_locals.values() if isinstance(value, (str, bytes, dict, list))]
        frame = frame.f_back
    needle = "expected" + "-answer"
    return any(needle in text for text in seen)
