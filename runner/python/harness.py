"""Runs one Python program inside a cell, and tells what became of it on descriptor 3.

Reads one JSON object {"source", "file", "args", "input_json"} from descriptor 3, to the end of the stream, writes the
source to that file in the working directory, and runs it as the module __main__, with the job's input as the global
`input_data`. Writes one JSON object {"value_json", "dropped", "exception", "completed"} back, of at most MAX_ANSWER
bytes. A program that leaves early has not completed.

The value is what `main()` returns, if the program defines `main` and did not call it (entry.py); else the value of
the last statement, if that is an expression (also as the last one under `if __name__ == "__main__":`). None is a value
where `main` answers it, and none where another last expression comes to it, such as print(). Only plain data is a
value: None, booleans, integers of up to 64 bits, floats (NaN and infinities become null), strings, lists and tuples,
dictionaries with string keys, and what turns itself into these by `tolist()` or `item()`, as NumPy's and pandas'
objects do. Of anything else, anything nested deeper than MAX_DEPTH in values.py, and anything too long, the answer says why it was
dropped.

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
FILENAME = "main.py"  # where the job names none
PIECE = 64 << 10  # of a request, read at once
MAX_ANSWER = 1 << 20
MAX_TEXT = 128 << 10  # characters of an exception's message, and of its traceback
VALUE = "__sandhog_value__"
QUESTIONS = 4
MODULES = "/usr/lib/sandhog/cell"  # what a program may import of ours
HERE = __file__.rpartition("/")[0]

process = None  # the program's own
filename = FILENAME  # of the program's source
source_file = None  # where that is to be put, until it is
home = None  # the working directory that the program begins in
loaded = {}  # modules of ours that were needed


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


class Loader:
    """Gives tracebacks and `inspect` the source when it is not in its file."""

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
    """Makes a last expression leave its value in a global; returns whether it calls main."""
    while body and is_guard(body[-1]):
        body = body[-1].body
    if not body or not isinstance(body[-1], _ast.Expr):
        return False
    last = body[-1]
    where = {
        name: getattr(last, name)
        for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")
    }
    target = _ast.Name(id=VALUE, ctx=_ast.Store(), **where)
    body[-1] = _ast.Assign(targets=[target], value=last.value, type_comment=None, **where)
    return is_call_of_main(last.value)


def is_call_of_main(node):
    """Returns whether this is `main(...)`, or `asyncio.run(main(...))`."""
    called = getattr(node, "func", None)
    if isinstance(called, _ast.Attribute) and called.attr == "run" and node.args:
        return is_call_of_main(node.args[0])
    return isinstance(called, _ast.Name) and called.id == "main"


def parse(source):
    """Parses the program. None if it is too deep for a tree, but perhaps not for the compiler."""
    try:
        return compile(source, filename, "exec", 0x400, True)  # PyCF_ONLY_AST
    except RecursionError:
        return None


def compile_tree(tree):
    """Compiles a tree that was parsed within Python's limits.

    The conversion of a tree has a lower limit than the compilation of source, so it is raised.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(4 * limit)
    try:
        return compile(tree, filename, "exec", 0, True)
    finally:
        sys.setrecursionlimit(limit)


def run(source, module):
    """Runs the program; what it is worth, or NOTHING."""
    names = module.__dict__
    tree = parse(source)
    entry = own("entry") if tree is not None and "main" in source else None
    if entry is not None:
        entry.watch(tree)
    answers = tree is not None and keep_last_expression(tree.body)
    code = compile_tree(tree) if tree is not None else compile(source, filename, "exec", 0, True)
    if entry is not None:
        code = entry.marked(code)
        entry.begin(module, source)
    try:
        exec(code, names)
        last = names.pop(VALUE, NOTHING)
        main = names.get("main")
        is_main = callable(main) and getattr(main, "__module__", None) == "__main__" and posix.getpid() == process
        is_left = is_main and (entry is None or entry.is_left_to_call(tree))
    finally:
        if entry is not None:
            entry.end()
    if is_left:
        value = main()
        if type(value).__name__ == "coroutine":
            value = library("asyncio").run(value)
        return value
    return NOTHING if last is None and not answers else last


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
    if kind is SyntaxError and error.filename == filename and error.text is None and error.lineno:
        # Found after parsing, when the compiler no longer has the text.
        error.text = "".join(source.splitlines(True)[error.lineno - 1 : error.lineno])
    try:
        text = "".join(library("traceback").format_exception(kind, error, trace))
    except BaseException:
        text = kind.__name__ + "\n"
    try:
        message = str(error)
    except BaseException:
        message = "<exception str() failed>"
    parts = (kind.__name__, message[:MAX_TEXT], text[-MAX_TEXT:])
    described = '{"name":%s,"message":%s,"traceback":%s}' % tuple(map(to_json, parts))
    return described, lambda: show(text, kind, error, trace)


def hint(error):
    """A line about the sandbox that explains the exception, if there is one."""
    try:
        return own("hints").hint(error)
    except BaseException:
        return ""


def show(text, kind, error, trace):
    """Prints an exception as Python does: by the program's own hook, if it has one."""
    try:
        if sys.excepthook is sys.__excepthook__:
            sys.stderr.write(text + hint(error))
        else:
            sys.excepthook(kind, error, trace)
    except BaseException:
        try:
            sys.__stderr__.write(text)
        except BaseException:
            pass


def send(value, reason, exception, completed):
    """Writes the answer; without the value when it would be too long."""
    rest = (exception or "null", "true" if completed else "false")
    for text in (value, None):
        if text is not value:
            reason = values.dropped("value", values.TOO_LONG)
        quoted = "null" if text is None else to_json(text)
        answer = '{"value_json":%s,"dropped":%s,"exception":%s,"completed":%s}'
        answer = (answer % (quoted, reason or "null", *rest)).encode()
        if len(answer) <= MAX_ANSWER:
            break
    else:
        return
    try:
        while answer:
            answer = answer[posix.write(CHANNEL, answer) :]
    except OSError:
        pass  # Nobody listens: the program closed the channel.


def library(name):
    """A module of the standard library, although a file of the program's may have its name."""
    module = sys.modules.get(name)
    if module is None:
        before = sys.path[:]
        sys.path[:] = [path for path in before if path not in ("", home)]
        try:
            module = __import__(name)
        finally:
            sys.path[:] = before
    return module


def load(name, **given):
    """A module of ours, which no program finds among its own, with these names in it."""
    module = type(sys)(name)
    module.__dict__.update(given, load=load)
    type(__loader__)(name, HERE + "/%s.py" % name).exec_module(module)
    return module


def own(name, **given):
    """The same, loaded once."""
    if name not in loaded:
        loaded[name] = load(name, **given)
    return loaded[name]


NOTHING = object()  # in the place of a value
values = load("values", to_json=to_json)


def displays():
    """The module of displays."""
    return own("displays", value_json=values.value_json, is_program=lambda: posix.getpid() == process)


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
    if "displays" in loaded:
        loaded["displays"].close()


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
    global home
    home = posix.getcwd()
    module = type(sys)("__main__")
    module.__builtins__ = builtins
    # As for a script in the working directory; HERE is what the interpreter put first, if it did.
    sys.path[:] = [home, *(path for path in sys.path if path != HERE), MODULES]
    return module


def open_source():
    """Makes the file that the source will be put in, which takes longer than to fill it."""
    global source_file
    source_file = new_file(FILENAME)


def new_file(name):
    """Makes a file. None if there is no room, or the job has brought a file of that name."""
    try:
        return posix.open(name, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    except OSError:
        return None


def keep_source(source):
    """Puts the source in its file, under its name. Where there is no room there is no file."""
    global source_file
    name = FILENAME
    if source_file is None and filename != FILENAME:
        name, source_file = filename, new_file(filename)
    if source_file is None:
        return
    file, source_file = source_file, None
    try:
        data = source.encode()
        while data:
            data = data[posix.write(file, data) :]
        if filename != name:
            posix.rename(name, filename)
    except OSError:
        posix.unlink(name)
    posix.close(file)


def perform(request, module):
    """Runs the program of a request and answers; leaves by SystemExit when the program ended badly or asked for it."""
    global process, filename
    filename = request.get("file") or FILENAME
    keep_source(request["source"])
    source = request["source"].removeprefix("\ufeff")
    module.__file__ = home.rstrip("/") + "/" + filename
    module.__loader__ = Loader(source)
    module.input_data = from_json(request["input_json"])
    sys.argv = [filename, *request["args"]]
    harness, sys.modules["__main__"] = sys.modules["__main__"], module

    process = posix.getpid()
    value = reason = exception = leaving = print_it = None
    worth = NOTHING
    try:
        worth = run(source, module)
        if worth is not NOTHING:
            value, reason = values.value_or_reason(worth)
    except SystemExit as error:
        leaving = error
    except BaseException as error:
        exception, print_it = describe(error, source)
    if posix.getpid() == process:
        show_rest(None if worth is NOTHING else worth)
        # Before anything else of the program's is called again: a hook of its could end the process.
        send(value, reason, exception, leaving is None and exception is None)
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
    open_source()
    perform(from_json(read_request().decode()), stage())
