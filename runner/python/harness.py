"""Runs one Python program inside a cell, and tells what became of it on descriptor 3.

Reads one JSON object {"source", "args", "input_json"} from descriptor 3, to the end of the stream, and runs the
source as the module __main__, with the job's input as the global `input_data`. Writes one JSON object
{"value_json", "exception", "completed"} back, of at most MAX_ANSWER bytes. A program that leaves early has not completed.

The value is what `main()` returns, if the program defines `main` and has no top-level call of it; else the value of
the last statement, if that is an expression (also as the last one under `if __name__ == "__main__":`). Only plain
data is a value: None, booleans, integers of up to 64 bits, floats (NaN and infinities become null), strings, lists
and tuples, dictionaries with string keys, and what turns itself into these by `tolist()` or `item()`, as NumPy's and
pandas' objects do. Anything else, anything nested deeper than MAX_DEPTH, and anything too long, is no value.

Before the answer go displays: what the program gives to the built-in `display`, its value, if that has a rich form, and
the matplotlib figures that it shows or leaves open. displays.py knows how; it is loaded when it is needed.

An exception that leaves the program is printed to standard error as Python prints it, the exit code is 1, and its
name, message and traceback are in the answer. SystemExit keeps its meaning. Everything else, such as waiting for
threads and running exit handlers, is left to the interpreter.

Only built-in modules are imported before the program runs: start-up time is what this is for.

zygote.py imports this file, and calls `stage` and `perform` in a process that was forked instead of started.
"""

import builtins
import sys
import posix
import _ast

CHANNEL = 3
FILENAME = "main.py"
PIECE = 64 << 10  # of a request, read at once
MAX_ANSWER = 1 << 20
MAX_TEXT = 128 << 10  # characters of an exception's message, and of its traceback
MAX_DEPTH = 100
MAX_VALUE = 900 << 10  # characters of a value, before they are quoted
VALUE = "__sandhog_value__"
QUESTIONS = 4
MODULES = "/usr/lib/sandhog/cell"  # what a program may import of ours
HERE = __file__.rpartition("/")[0]

process = None  # the program's own
shower = None  # the module of displays, once it was needed


class Context:
    """What the C scanner asks of a decoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = None
    memo = {}


scan = None  # once it was needed


def from_json(text):
    global scan
    if scan is None:
        try:
            from _json import make_scanner

            scan = make_scanner(Context)
        except ImportError:
            import json

            return json.loads(text)
    return scan(text, 0)[0]


def to_json(text):
    """A string as JSON. What is half a surrogate pair, and so no character, becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    try:
        from _json import encode_basestring
    except ImportError:
        import json

        return json.dumps(text, ensure_ascii=False)
    return encode_basestring(text)


class NotPlain(Exception):
    """The object is not plain data, or too much of it."""


class Writer:
    """Writes a value as JSON text, in pieces, up to a length."""

    def __init__(self):
        self.pieces = []
        self.length = 0

    def put(self, piece):
        self.length += len(piece)
        if self.length > MAX_VALUE:
            raise NotPlain
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
                raise NotPlain
            self.put(to_json(str.__str__(value)))
        elif isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 64:
                raise NotPlain
            self.put(int.__repr__(value))
        elif isinstance(value, float):
            finite = value - value == 0
            self.put(float.__repr__(value) if finite else "null")
        elif depth == MAX_DEPTH:
            raise NotPlain
        elif isinstance(value, (list, tuple)):
            between = "["
            for each in value:
                self.put(between)
                self.write(each, depth + 1)
                between = ","
            self.put("]" if between == "," else "[]")
        elif isinstance(value, dict):
            between = "{"
            for key, each in dict.items(value):
                if not isinstance(key, str):
                    raise NotPlain
                self.put(between)
                self.put(to_json(str.__str__(key)))
                self.put(":")
                self.write(each, depth + 1)
                between = ","
            self.put("}" if between == "," else "{}")
        else:
            self.write(plainer(value), depth + 1)


def plainer(value):
    """What an array, a series or a scalar of some library says it is in plain data."""
    size = getattr(value, "nbytes", 0)
    if isinstance(value, type) or not isinstance(size, int) or size > MAX_ANSWER * 8:
        raise NotPlain
    for name in ("tolist", "item"):
        method = getattr(value, name, None)
        if method is not None:
            return method()
    raise NotPlain


def value_json(value):
    """The value as JSON text; None when there is none, or it is not plain data."""
    if value is None:
        return None
    writer = Writer()
    try:
        writer.write(value)
    except Exception:
        return None
    return "".join(writer.pieces)


class Loader:
    """Where tracebacks and `inspect` find the source, which is in no file."""

    def __init__(self, source):
        self.source = source

    def get_source(self, _name):
        return self.source


def is_guard(node):
    """Whether this is `if __name__ == ...:`."""
    test = getattr(node, "test", None)
    return (
        isinstance(node, _ast.If)
        and isinstance(test, _ast.Compare)
        and isinstance(test.left, _ast.Name)
        and test.left.id == "__name__"
    )


def keep_last_expression(body):
    """Makes the last statement leave its value in a global, if it is an expression."""
    while body and is_guard(body[-1]):
        body = body[-1].body
    if body and isinstance(body[-1], _ast.Expr):
        last = body[-1]
        where = {
            name: getattr(last, name)
            for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")
        }
        target = _ast.Name(id=VALUE, ctx=_ast.Store(), **where)
        body[-1] = _ast.Assign(targets=[target], value=last.value, type_comment=None, **where)


def calls_main(node):
    """Whether running this statement may call `main` by name, outside of any definition."""
    definitions = (_ast.FunctionDef, _ast.AsyncFunctionDef, _ast.ClassDef, _ast.Lambda)
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, definitions):
            continue
        if isinstance(node, _ast.Call) and isinstance(node.func, _ast.Name) and node.func.id == "main":
            return True
        for field in node._fields:
            child = getattr(node, field, None)
            if isinstance(child, _ast.AST):
                pending.append(child)
            elif isinstance(child, list):
                pending.extend(each for each in child if isinstance(each, _ast.AST))
    return False


def run(source, module):
    """Runs the program; what it is worth."""
    tree = compile(source, FILENAME, "exec", 0x400, True)  # PyCF_ONLY_AST
    explicit = "main" in source and any(map(calls_main, tree.body))
    keep_last_expression(tree.body)
    code = compile(tree, FILENAME, "exec", 0, True)
    names = module.__dict__
    exec(code, names)
    main = names.get("main")
    if not explicit and callable(main) and getattr(main, "__module__", None) == "__main__":
        value = main()
        if type(value).__name__ == "coroutine":
            import asyncio

            value = asyncio.run(value)
        return value
    return names.pop(VALUE, None)


def without_harness(trace):
    """A traceback from the program's first frame on."""
    here = sys._getframe().f_code.co_filename
    while trace is not None and trace.tb_frame.f_code.co_filename == here:
        trace = trace.tb_next
    return trace


def describe(error, source):
    """What the answer says of an exception, as JSON, and how Python prints it, by which hook."""
    kind = type(error)
    trace = without_harness(error.__traceback__)
    if kind is SyntaxError and error.filename == FILENAME and error.text is None and error.lineno:
        # Found after parsing, when the compiler no longer has the text.
        error.text = "".join(source.splitlines(True)[error.lineno - 1 : error.lineno])
    try:
        import traceback

        text = "".join(traceback.format_exception(kind, error, trace))
    except BaseException:
        text = kind.__name__ + "\n"
    try:
        message = str(error)
    except BaseException:
        message = "<exception str() failed>"
    parts = (kind.__name__, message[:MAX_TEXT], text[-MAX_TEXT:])
    described = '{"name":%s,"message":%s,"traceback":%s}' % tuple(map(to_json, parts))
    return described, lambda: show(text, kind, error, trace)


def show(text, kind, error, trace):
    """Prints an exception as Python does: by the program's own hook, if it has one."""
    try:
        if sys.excepthook is sys.__excepthook__:
            sys.stderr.write(text)
        else:
            sys.excepthook(kind, error, trace)
    except BaseException:
        try:
            sys.__stderr__.write(text)
        except BaseException:
            pass


def send(value, exception, completed):
    """Writes the answer; without the value when it would be too long."""
    rest = (exception or "null", "true" if completed else "false")
    for text in (value, None):
        quoted = "null" if text is None else to_json(text)
        answer = ('{"value_json":%s,"exception":%s,"completed":%s}' % (quoted, *rest)).encode()
        if len(answer) <= MAX_ANSWER:
            break
    else:
        return
    try:
        while answer:
            answer = answer[posix.write(CHANNEL, answer) :]
    except OSError:
        pass  # Nobody listens: the program closed the channel.


def load(name, **given):
    """A module of ours, which no program finds among its own, with these names in it."""
    module = type(sys)(name)
    module.__dict__.update(given, load=load)
    type(__loader__)(name, HERE + "/%s.py" % name).exec_module(module)
    return module


def displays():
    """The module of displays, which no program finds among its own."""
    global shower
    if shower is None:
        shower = load("displays", value_json=value_json, is_program=lambda: posix.getpid() == process)
    return shower


def display(*things, **options):
    """Shows things in every form they have, such as PNG or HTML: each becomes one of the result's displays."""
    displays().display(things, **options)


class Pyplot:
    """A finder of modules that waits for matplotlib.pyplot."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "matplotlib.pyplot":
            return None
        sys.meta_path.remove(Pyplot)
        return displays().find_pyplot(name, path, target)


def offer_displays():
    """Lets programs show things."""
    builtins.display = display
    sys.meta_path.insert(0, Pyplot)


def show_rest(value):
    """Shows the value, if it has a rich form, and open figures; for most programs, looks and does nothing."""
    try:
        pylab = sys.modules.get("matplotlib._pylab_helpers")
        if type(value).__module__ != "builtins" or pylab is not None and pylab.Gcf.figs:
            displays().show_rest(value)
    except BaseException:
        pass  # It is the program's own that raised: nothing is shown then.
    if shower is not None:
        shower.close()


def offer_streams():
    """Has what programs print written at once or in blocks, depending on how much it is."""
    import atexit

    # The first that is registered is the last that is called.
    atexit.register(load("streams").replace())


def read_request():
    """The request, as bytes; none when the channel ends without one."""
    pieces = []
    while True:
        piece = posix.read(CHANNEL, PIECE)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def stage():
    """The module that a program is to run as, and the process made ready for it: all that needs no request."""
    module = type(sys)("__main__")
    module.__file__ = FILENAME
    module.__builtins__ = builtins
    # As for a script in the working directory; HERE is what the interpreter put first, if it did.
    sys.path[:] = [posix.getcwd(), *(path for path in sys.path if path != HERE), MODULES]
    return module


def perform(request, module):
    """Runs the program of a request and answers; leaves by SystemExit when the program ended badly or asked for it."""
    source = request["source"].removeprefix("\ufeff")
    module.__loader__ = Loader(source)
    module.input_data = from_json(request["input_json"])
    sys.argv = [FILENAME, *request["args"]]
    harness, sys.modules["__main__"] = sys.modules["__main__"], module

    global process
    process = posix.getpid()
    value = worth = exception = leaving = print_it = None
    try:
        worth = run(source, module)
        value = value_json(worth)
    except SystemExit as error:
        leaving = error
    except BaseException as error:
        exception, print_it = describe(error, source)
    if posix.getpid() == process:
        show_rest(worth)
        # Before anything else of the program's is called again: a hook of its could end the process.
        send(value, exception, leaving is None and exception is None)
    if leaving is not None:
        raise SystemExit(leaving.code)
    if exception is not None:
        print_it()
        raise SystemExit(1)


if __name__ == "__main__":
    posix.set_inheritable(CHANNEL, False)
    try:
        posix.set_inheritable(QUESTIONS, False)
    except OSError:
        pass  # A program that may ask nothing has none.
    offer_displays()
    offer_streams()
    perform(from_json(read_request().decode()), stage())
