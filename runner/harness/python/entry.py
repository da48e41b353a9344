"""Detects whether a program has called its own `main`. If it has not, the harness calls `main`.

The decision depends on the calls that happened, not on the program's text. Before the program is
compiled, `watch` inserts a first statement into each top-level function that is defined as `main`.
This statement reads an attribute of a constant, and `marked` replaces the constant by a `Mark`. The
first read of the attribute records the call and turns the mark into a plain object, so that later
calls cost only one look-up. The function's lines, docstring, names and identity do not change, and
a copy of the function that is pickled by value contains a plain object.

A call may also happen elsewhere or later: in a forked process (which reports it in a shared page of
memory), in a process of another kind (`main` is pickled to get there), in a thread that has not
called it yet, or at exit.

The harness loads this file only for programs whose source contains the word main.
"""

import gc
import posix
import sys
import time

import _ast

PLACEHOLDER = "\0sandhog main\0"
ATTRIBUTE = "called"
DEFINITIONS = (_ast.FunctionDef, _ast.AsyncFunctionDef, _ast.ClassDef, _ast.Lambda)
FUNCTIONS = (_ast.FunctionDef, _ast.AsyncFunctionDef)
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.02
MAX_VISITED = 10_000  # objects visited in the search for main
PLAIN = type(sys.implementation)  # types.SimpleNamespace
MODULE = type(sys)

is_marked = False
was_called = False
names = {}  # the globals of the program
page = None  # a page of memory that is shared with forked processes
processes = []  # forked processes that may still call main


class Called:
    """A mark that was read. Its attribute is an ordinary one now."""

    def __reduce__(self):
        return PLAIN, (), {ATTRIBUTE: None}


class Mark(Called):
    """A mark that was never read."""

    @property
    def called(self):
        note()
        self.__class__ = Called
        self.called = None


def note():
    """Records that main was called, or is certain to be called."""
    global was_called
    was_called = True
    if page is not None:
        page[0] = 1


FUNCTION = type(note)


def statements(body):
    """Yields the statements that run at the top level, also those within other statements."""
    pending = [body]
    while pending:
        for each in pending.pop():
            yield each
            if isinstance(each, DEFINITIONS):
                continue
            for part in (each, *getattr(each, "handlers", ()), *getattr(each, "cases", ())):
                blocks = (getattr(part, field, None) for field in ("body", "orelse", "finalbody"))
                pending.extend(block for block in blocks if isinstance(block, list))


def watch(tree):
    """Marks the functions that the program defines as main, or assigns to that name."""
    global is_marked
    aliases, functions = {"main"}, []
    for each in statements(tree.body):
        if isinstance(each, FUNCTIONS):
            functions.append(each)
        value = given_to_main(each)
        if isinstance(value, _ast.Name):
            aliases.add(value.id)
        elif isinstance(value, _ast.Lambda):
            value.body = marked_expression(value.body)
            is_marked = True
    for each in functions:
        if each.name in aliases:
            mark_body(each)
            is_marked = True


def given_to_main(statement):
    """Returns the expression that this statement assigns to the name main, if it does."""
    if isinstance(statement, _ast.Assign):
        targets = statement.targets
    elif isinstance(statement, _ast.AnnAssign):
        targets = [statement.target]
    else:
        return None
    is_main = any(isinstance(each, _ast.Name) and each.id == "main" for each in targets)
    return statement.value if is_main else None


def place_of(node):
    return {
        name: getattr(node, name)
        for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")
    }


def reading(where):
    """Returns the expression that reads a mark."""
    constant = _ast.Constant(value=PLACEHOLDER, kind=None, **where)
    return _ast.Attribute(value=constant, attr=ATTRIBUTE, ctx=_ast.Load(), **where)


def mark_body(function):
    body = function.body
    docstring = getattr(body[0], "value", None) if isinstance(body[0], _ast.Expr) else None
    at = int(isinstance(getattr(docstring, "value", None), str))
    # On the line of the next statement, so that a tracer sees no additional line.
    where = place_of(body[min(at, len(body) - 1)])
    body.insert(at, _ast.Expr(value=reading(where), **where))


def marked_expression(body):
    """Returns an expression that reads a mark and then evaluates `body`.

    The attribute of a mark is None.
    """
    where = place_of(body)

    def none():
        return _ast.Constant(value=None, kind=None, **where)

    test = _ast.Compare(left=reading(where), ops=[_ast.Is()], comparators=[none()], **where)
    return _ast.IfExp(test=test, body=body, orelse=none(), **where)


def marked(code):
    """Returns the program's code with marks in place of the placeholders."""
    return code.replace(co_consts=tuple(map(with_mark, code.co_consts))) if is_marked else code


def with_mark(constant):
    constants = getattr(constant, "co_consts", ())
    if PLACEHOLDER not in constants:
        return constant
    return constant.replace(
        co_consts=tuple(Mark() if each == PLACEHOLDER else each for each in constants)
    )


def begin(module, source):
    """Prepares to detect calls outside the program's main thread and process, or after its end."""
    global names
    names = module.__dict__
    posix.register_at_fork(before=before_fork)
    # Only if the source contains the words: each pickling or registration costs a little more then.
    if "multiprocess" in source or "concurrent" in source:
        module.__class__ = Module
    if "atexit" in source:
        watch_exit()


def end():
    """Releases the program's objects. It is decided now whether its main was called."""
    global names
    names = {}
    processes.clear()


class Module(MODULE):
    """The program's module. If main is pickled for another process, that process calls it."""

    def __getattribute__(self, name):
        if (
            name == "main"
            and sys._getframe(1).f_globals.get("__name__") == "multiprocessing.reduction"
        ):
            note()
        return super().__getattribute__(name)


Module.__name__ = Module.__qualname__ = "module"


def before_fork():
    """Prepares a fork: shares a page in which the new process records a call of main.

    If main is the target of a `multiprocessing` process, the call is recorded at once.
    """
    global page
    if is_called():
        return
    if page is None:
        import mmap

        page = mmap.mmap(-1, 1)
    frame = sys._getframe(1)
    process = frame.f_locals.get("process_obj") if frame.f_code.co_name == "_launch" else None
    if process is None:
        return
    if is_main(process.__dict__.get("_target")):
        note()
    elif leads_to_main([process.__dict__, type(process).run]):
        processes.append(process)


def watch_exit():
    """Records a call of main if main is registered to be called at exit."""
    import atexit

    register = atexit.register

    def register_and_note(function, /, *arguments, **options):
        if leads_to_main([function, arguments, options]):
            note()
        return register(function, *arguments, **options)

    register_and_note.__name__ = register_and_note.__qualname__ = "register"
    register_and_note.__doc__ = register.__doc__
    atexit.register = register_and_note


def is_called():
    return was_called or page is not None and page[0] != 0


def is_left_to_call(tree):
    """Returns whether the program has reached its end without a call of its main."""
    if not is_marked and calls_main(tree):
        return False
    pause = FIRST_PAUSE
    while not is_called() and is_still_to_come():
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return not is_called()


def is_still_to_come():
    """Returns whether a thread or process that the interpreter waits for may still call main."""
    threading = sys.modules.get("threading")
    threads = threading.enumerate() if threading is not None else []
    current = threading.current_thread() if threading is not None else None
    return any(
        may_call(each) for each in threads if each is not current and not each.daemon
    ) or any(each.is_alive() for each in processes)


def may_call(thread):
    """Returns whether a thread may call main: through its target, or from its stack."""
    roots = [thread.__dict__, type(thread).run]
    frame = sys._current_frames().get(thread.ident)
    while frame is not None:
        if frame.f_globals is names:
            if mentions_main(frame.f_code):
                return True
            roots.append(list(frame.f_locals.values()))
        frame = frame.f_back
    return leads_to_main(roots)


def leads_to_main(roots):
    """Returns whether these objects lead to main, or to a function that mentions it."""
    visited, pending = set(), list(roots)
    while pending and len(visited) < MAX_VISITED:
        each = pending.pop()
        if is_main(each):
            return True
        if id(each) in visited or isinstance(each, (type, MODULE)) or each is names:
            continue
        visited.add(id(each))
        if type(each) is FUNCTION:
            if each.__globals__ is names and mentions_main(each.__code__):
                return True
            pending += each.__closure__ or (), each.__defaults__ or (), each.__kwdefaults__ or {}
        else:
            pending += gc.get_referents(each)
    return False


def is_main(function):
    if function is None:
        return False
    if function is names.get("main"):
        return True
    return type(function) is FUNCTION and any(
        isinstance(each, Called) for each in function.__code__.co_consts
    )


def mentions_main(code):
    """Returns whether code, or a function defined in it, uses the name main."""
    inner = (each for each in code.co_consts if isinstance(each, type(code)))
    return "main" in code.co_names or any(map(mentions_main, inner))


def calls_main(tree):
    """Returns whether a top-level statement calls main by name.

    Needed for a main that no statement of the source defines, and so cannot be marked.
    """
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, DEFINITIONS):
            continue
        if (
            isinstance(node, _ast.Call)
            and isinstance(node.func, _ast.Name)
            and node.func.id == "main"
        ):
            return True
        for field in node._fields:
            child = getattr(node, field, None)
            children = child if isinstance(child, list) else (child,)
            pending.extend(each for each in children if isinstance(each, _ast.AST))
    return False
