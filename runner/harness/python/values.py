"""Writes a program's value as JSON if it is plain data, and gives a reason if it is not.

The harness loads this file and passes `to_json`, which encodes a string.
"""

MAX_VALUE = 900 << 10  # characters of a value, before it is quoted
MAX_ARRAY = 8 << 20  # bytes of an array; larger ones are not converted
MAX_DEPTH = 100
MAX_NAME = 100  # characters of a type's name

NO_PLAIN_DATA = (
    "it is not plain data: null, booleans, numbers, text, lists, and maps with text as keys"
)
TOO_LONG = "as JSON it is longer than %d KiB" % (MAX_VALUE >> 10)
PLAIN = (str, int, float, list, tuple, dict, type(None))


class NotPlain(Exception):
    """The object is not plain data, or is too large. Holds the type's name and the reason."""

    def __init__(self, value, reason):
        super().__init__(name_of(type(value)), reason)


def name_of(kind):
    """Returns a type's name, with its module unless that is `builtins` or `__main__`."""
    try:
        module, name = str(kind.__module__), str(kind.__qualname__)
    except Exception:
        return "object"
    return name if module in ("builtins", "__main__") else "%s.%s" % (module, name)


class Writer:
    """Writes a value as JSON text, in pieces, up to a length."""

    def __init__(self):
        self.pieces = []
        self.length = 0

    def put(self, piece, value=""):
        self.length += len(piece)
        if self.length > MAX_VALUE:
            raise NotPlain(value, TOO_LONG)
        self.pieces.append(piece)

    def write(self, value, depth=0):
        if value is None:
            self.put("null")
        elif value is True:
            self.put("true")
        elif value is False:
            self.put("false")
        elif isinstance(value, str):
            if len(value) > MAX_VALUE:
                raise NotPlain(value, TOO_LONG)
            self.put(to_json(str.__str__(value)), value)
        elif isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 64:
                raise NotPlain(value, "an integer of %d bits is beyond 64" % int.bit_length(value))
            self.put(int.__repr__(value))
        elif isinstance(value, float):
            finite = value - value == 0
            self.put(float.__repr__(value) if finite else "null")
        elif depth == MAX_DEPTH:
            raise NotPlain(value, "it is nested deeper than %d levels" % MAX_DEPTH)
        elif isinstance(value, (list, tuple)):
            between = "["
            for each in value:
                self.put(between, value)
                self.write(each, depth + 1)
                between = ","
            self.put("]" if between == "," else "[]", value)
        elif isinstance(value, dict):
            between = "{"
            for key, each in dict.items(value):
                if not isinstance(key, str):
                    raise NotPlain(
                        value, "it has a key of type %s, and keys are text" % name_of(type(key))
                    )
                self.put(between, value)
                self.put(to_json(str.__str__(key)), value)
                self.put(":", value)
                self.write(each, depth + 1)
                between = ","
            self.put("}" if between == "," else "{}", value)
        else:
            self.write(plainer(value), depth + 1)


def plainer(value):
    """Returns an array, a series or a scalar of another library as plain data."""
    if isinstance(value, type):
        raise NotPlain(value, NO_PLAIN_DATA)
    size = getattr(value, "nbytes", 0)
    if isinstance(size, int) and size > MAX_ARRAY:
        raise NotPlain(value, TOO_LONG)
    for name in ("tolist", "item"):
        method = getattr(value, name, None)
        if method is not None:
            plain = method()
            if isinstance(plain, PLAIN):
                return plain
    raise NotPlain(value, NO_PLAIN_DATA)


def value_json(value):
    """Returns the value as JSON text. None when it is not plain data."""
    return value_or_reason(value)[0]


def value_or_reason(value):
    """Returns the value as JSON text and None, or None and the reason as JSON text."""
    writer = Writer()
    try:
        writer.write(value)
        return "".join(writer.pieces), None
    except NotPlain as error:
        return None, dropped(*error.args)
    except Exception as error:
        return None, dropped(name_of(type(value)), "reading it raised %s" % name_of(type(error)))


def dropped(kind, reason):
    return '{"type":%s,"reason":%s}' % (to_json(kind[:MAX_NAME]), to_json(reason[: 4 * MAX_NAME]))
