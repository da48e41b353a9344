"""Runs one Python program inside a cell, and reports its result on descriptor 3.

The harness reads one request from descriptor 3, a JSON object {"source", "file", "args",
"input_json"}. It writes the source to that file in the working directory, and runs it as the module
__main__ with the job's input as the global `input_data`. It writes one answer back, a JSON object
{"value_json", "dropped", "exception", "completed"} of at most MAX_ANSWER bytes. A program that
exits early has not completed. Request and answer are messages: a byte for the kind, a big-endian
length of four bytes, and a body. harness_message.rs of the protocol defines them.

The value of a program is the result of `main()`, if the program defines `main` and did not call it
(see entry.py). Otherwise it is the value of the last statement, if that is an expression; this may
also be the last statement under `if __name__ == "__main__":`. None is a value if `main()` returned
it. If another last expression, such as print(), evaluates to None, there is no value. A value must
be plain data: None, booleans, integers of up to 64 bits, floats (NaN and infinities become null),
strings, lists and tuples, dictionaries with string keys, and objects that `tolist()` or `item()`
converts to these, such as those of NumPy and pandas. Any other value is dropped, as is one that is
nested deeper than MAX_DEPTH in values.py or is too long. The answer then gives the reason.

Displays come before the answer: the arguments of the built-in function `display`, the program's
value if it has a rich form, and the matplotlib figures that the program shows or leaves open.
displays.py writes them; it is loaded when it is needed.

An exception that the program does not catch is printed to standard error as Python prints it. The
exit code is 1, and the name, message and traceback of the exception are in the answer. SystemExit
keeps its meaning. Everything else, such as waiting for threads and running exit handlers, is left
to the interpreter.

Only built-in modules are imported before the program runs, to keep the start-up time short.

zygote.py imports this file, and calls `prepare` and `run_request` in a forked process.
"""

import builtins
import sys
import posix
import _ast

CHANNEL = 3
REQUEST, ANSWER = b"R", b"A"  # kinds of messages
HEADER_BYTES = 5  # the kind and the length of a message
FILENAME = "main.py"  # if the job names no file
READ_BYTES = 64 << 10  # bytes of a request, read at once
MAX_ANSWER = 1 << 20
MAX_TEXT = 128 << 10  # characters of an exception's message, and of its traceback
VALUE = "__sandhog_value__"
INFER_FD = 4
MODULES = "/usr/lib/sandhog/cell"  # Sandhog's modules for programs
HERE = __file__.rpartition("/")[0]

process = None  # the id of the program's own process
filename = FILENAME  # of the program's source
source_file = None  # the descriptor of the source's file, until the source is written
home = None  # the working directory in which the program starts
loaded = {}  # Sandhog's own modules that are loaded


class Context:
    """The attributes of a JSON decoder that the C scanner reads."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = None
    memo = {}


scan = None  # created at its first use


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
    """Encodes a string as JSON. Half of a surrogate pair is no character and becomes U+FFFD."""
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
    """Provides the source to tracebacks and `inspect` when it is not in its file."""

    def __init__(self, source):
        self.source = source

    def get_source(self, _name):
        return self.source


def is_guard(node):
    """Returns whether this statement is `if __name__ == ...:`."""
    test = getattr(node, "test", None)
    return (
        isinstance(node, _ast.If)
        and isinstance(test, _ast.Compare)
        and isinstance(test.left, _ast.Name)
        and test.left.id == "__name__"
    )


def keep_last_expression(body):
    """Changes a last expression to store its value in a global. Returns whether it calls main."""
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
    """Parses the program.

    None if it is nested too deeply for a syntax tree. The compiler may still accept its source.
    """
    try:
        return compile(source, filename, "exec", 0x400, True)  # PyCF_ONLY_AST
    except RecursionError:
        return None


def compile_tree(tree):
    """Compiles a tree that was parsed within Python's limits.

    The recursion limit is raised, because compiling a tree has a lower limit than compiling source.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(4 * limit)
    try:
        return compile(tree, filename, "exec", 0, True)
    finally:
        sys.setrecursionlimit(limit)


def run(source, module):
    """Runs the program. Returns its value, or NOTHING."""
    names = module.__dict__
    tree = parse(source)
    entry = load_once("entry") if tree is not None and "main" in source else None
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
        is_main = (
            callable(main)
            and getattr(main, "__module__", None) == "__main__"
            and posix.getpid() == process
        )
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
    """Returns the traceback without the harness's frames before the program's first one."""
    here = sys._getframe().f_code.co_filename
    while trace is not None and trace.tb_frame.f_code.co_filename == here:
        trace = trace.tb_next
    return trace


def describe(error, source):
    """Returns the exception as JSON for the answer, and a function that prints it."""
    kind = type(error)
    trace = without_harness(error.__traceback__)
    if kind is SyntaxError and error.filename == filename and error.text is None and error.lineno:
        # The error was found after parsing, when the compiler no longer has the text.
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
    """Returns a line about the sandbox that explains the exception, if there is one."""
    try:
        return load_once("hints").hint(error)
    except BaseException:
        return ""


def show(text, kind, error, trace):
    """Prints an exception as Python does: with the program's own hook, if it has set one."""
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
    """Writes the answer. The value is left out if the answer would be too long with it."""
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
    answer = ANSWER + len(answer).to_bytes(4, "big") + answer
    try:
        while answer:
            answer = answer[posix.write(CHANNEL, answer) :]
    except OSError:
        pass  # The program has closed the channel.


def library(name):
    """Imports a module of the standard library, even if a file of the program has its name."""
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
    """Loads a module of Sandhog's own and sets these names in it.

    The module is not in `sys.modules`, where the program would find it.
    """
    module = type(sys)(name)
    module.__dict__.update(given, load=load)
    type(__loader__)(name, HERE + "/%s.py" % name).exec_module(module)
    return module


def load_once(name, **given):
    """Loads a module of Sandhog's own at its first use."""
    if name not in loaded:
        loaded[name] = load(name, **given)
    return loaded[name]


NOTHING = object()  # marks that there is no value
values = load("values", to_json=to_json)


def displays():
    """Returns the module for displays."""
    return load_once(
        "displays", value_json=values.value_json, is_program=lambda: posix.getpid() == process
    )


def display(*things, **options):
    """Shows objects in all their forms, such as PNG or HTML. Each is a display of the result."""
    displays().display(things, **options)


class Pyplot:
    """A module finder that acts when matplotlib.pyplot is imported."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "matplotlib.pyplot":
            return None
        sys.meta_path.remove(Pyplot)
        return displays().find_pyplot(name, path, target)


def offer_displays():
    """Provides `display` to programs, and handles the figures of matplotlib."""
    builtins.display = display
    sys.meta_path.insert(0, Pyplot)


def show_rest(value):
    """Shows the value, if it has a rich form, and open figures. Most programs have neither."""
    try:
        pylab = sys.modules.get("matplotlib._pylab_helpers")
        if type(value).__module__ != "builtins" or pylab is not None and pylab.Gcf.figs:
            displays().show_rest(value)
    except BaseException:
        pass  # The program's own code raised. Nothing is shown then.
    if "displays" in loaded:
        loaded["displays"].close()


def offer_streams():
    """Writes the program's output at once or in blocks, depending on its amount."""
    import atexit

    # The exit handler that is registered first is called last.
    atexit.register(load("streams").replace())


def request_pieces(held=b""):
    """Yields the body of the request in pieces, as they arrive. `held` was read already.

    Skips messages of other kinds. Yields nothing if the channel ends without a request.
    """
    is_request = False
    while not is_request:
        while len(held) < HEADER_BYTES:
            piece = posix.read(CHANNEL, READ_BYTES)
            if not piece:
                return
            held += piece
        is_request = held.startswith(REQUEST)
        missing = int.from_bytes(held[1:HEADER_BYTES], "big")
        held = held[HEADER_BYTES:]
        while True:
            piece, held = held[:missing], held[missing:]
            missing -= len(piece)
            if is_request:
                yield piece
            if not missing:
                break
            held = posix.read(CHANNEL, min(missing, READ_BYTES))
            if not held:
                return


def prepare():
    """Prepares the process and the program's module, as far as possible without the request."""
    global home
    home = posix.getcwd()
    module = type(sys)("__main__")
    module.__builtins__ = builtins
    # As for a script in the working directory. The interpreter may have put HERE first.
    sys.path[:] = [home, *(path for path in sys.path if path != HERE), MODULES]
    return module


def open_source():
    """Creates the file for the source in advance, because creating it takes longer than writing."""
    global source_file
    source_file = new_file(FILENAME)


def new_file(name):
    """Creates a file. None if there is no space, or the job has brought a file of that name."""
    try:
        return posix.open(
            name, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644
        )
    except OSError:
        return None


def keep_source(source):
    """Writes the source to its file, under its name. Without enough space there is no file."""
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


def run_request(request, module):
    """Runs the program of a request and writes the answer.

    Raises SystemExit if the program raised an exception, or raised SystemExit itself.
    """
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
        # Sent before any further code of the program runs, because a hook could end the process.
        send(value, reason, exception, leaving is None and exception is None)
    if leaving is not None:
        raise SystemExit(leaving.code)
    if exception is not None:
        print_it()
        raise SystemExit(1)


if __name__ == "__main__":
    posix.set_inheritable(CHANNEL, False)
    try:
        posix.set_inheritable(INFER_FD, False)
    except OSError:
        pass  # A program that may send no inference requests has no such descriptor.
    offer_displays()
    offer_streams()
    open_source()
    run_request(from_json(b"".join(request_pieces()).decode()), prepare())
