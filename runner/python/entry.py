"""Tells whether a program has called its own `main`, so that the harness calls one that it has not.

Decided by what happened, not by how a call is written. Before the program is compiled, `watch` gives each function
that is defined as `main` at the top level a first statement that reads an attribute of a constant, and `marked` puts
a `Mark` in the place of that constant. The first reading notes the call and turns the mark into a plain object, so
that later calls cost one look-up. Lines, docstring, names and identity stay as they were, and a copy of the function
that is pickled by value takes a plain object along.

A call may also happen elsewhere or later: in a forked process (it shares a page of memory that says so), in a process
of another kind (its main is pickled on the way there), in a thread that has not come to it yet, or at exit.

The harness loads this file only for programs in which the word main occurs.
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
MAX_VISITED = 10_000  # objects between a thread and main
PLAIN = type(sys.implementation)  # types.SimpleNamespace
MODULE = type(sys)

is_marked = False
was_called = False
names = {}  # the program's
page = None  # of memory, shared with forked processes
processes = []  # forked ones that may come to call main


class Called:
    """A mark that was read; the attribute is an ordinary one now."""

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
    """Takes note that main was called, or is certain to be."""
    global was_called
    was_called = True
    if page is not None:
        page[0] = 1


FUNCTION = type(note)


def statements(body):
    """The statements that run at the top level, those within other statements included."""
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
    """Marks the functions that the program knows as main."""
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
    """The expression that this statement assigns to the name main, if it does."""
    if isinstance(statement, _ast.Assign):
        targets = statement.targets
    elif isinstance(statement, _ast.AnnAssign):
        targets = [statement.target]
    else:
        return None
    is_main = any(isinstance(each, _ast.Name) and each.id == "main" for each in targets)
    return statement.value if is_main else None


def place_of(node):
    return {name: getattr(node, name) for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")}


def reading(where):
    """The expression that reads a mark."""
    constant = _ast.Constant(value=PLACEHOLDER, kind=None, **where)
    return _ast.Attribute(value=constant, attr=ATTRIBUTE, ctx=_ast.Load(), **where)


def mark_body(function):
    body = function.body
    docstring = getattr(body[0], "value", None) if isinstance(body[0], _ast.Expr) else None
    at = int(isinstance(getattr(docstring, "value", None), str))
    # On the line of the next statement, so that a tracer sees no line more.
    where = place_of(body[min(at, len(body) - 1)])
    body.insert(at, _ast.Expr(value=reading(where), **where))


def marked_expression(body):
    """`body`, once a mark was read. A mark's attribute is None."""
    where = place_of(body)

    def none():
        return _ast.Constant(value=None, kind=None, **where)

    test = _ast.Compare(left=reading(where), ops=[_ast.Is()], comparators=[none()], **where)
    return _ast.IfExp(test=test, body=body, orelse=none(), **where)


def marked(code):
    """The program's code with marks in the place of the placeholders."""
    return code.replace(co_consts=tuple(map(with_mark, code.co_consts))) if is_marked else code


def with_mark(constant):
    constants = getattr(constant, "co_consts", ())
    if PLACEHOLDER not in constants:
        return constant
    return constant.replace(co_consts=tuple(Mark() if each == PLACEHOLDER else each for each in constants))


def begin(module, source):
    """Prepares for calls that happen elsewhere or later than in the program's own code."""
    global names
    names = module.__dict__
    posix.register_at_fork(before=before_fork)
    # Only where the words occur: a program that pickles or registers much pays a little for each.
    if "multiprocess" in source or "concurrent" in source:
        module.__class__ = Module
    if "atexit" in source:
        watch_exit()


def end():
    """Lets go of the program: whether its main was called is decided."""
    global names
    names = {}
    processes.clear()


class Module(MODULE):
    """The program's module. A main that is pickled for another process is called there."""

    def __getattribute__(self, name):
        if name == "main" and sys._getframe(1).f_globals.get("__name__") == "multiprocessing.reduction":
            note()
        return super().__getattribute__(name)


Module.__name__ = Module.__qualname__ = "module"


def before_fork():
    """Gives the new process a way to tell that it called main; notes a target main at once."""
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
    """Notes a main that is registered to be called at exit."""
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
    """Returns whether the program has come to its end without a call of its main."""
    if not is_marked and calls_main(tree):
        return False
    pause = FIRST_PAUSE
    while not is_called() and is_still_to_come():
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return not is_called()


def is_still_to_come():
    """Returns whether a thread or process that the interpreter waits for may yet call main."""
    threading = sys.modules.get("threading")
    threads = threading.enumerate() if threading is not None else []
    current = threading.current_thread() if threading is not None else None
    return any(may_call(each) for each in threads if each is not current and not each.daemon) or any(
        each.is_alive() for each in processes
    )


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
    return type(function) is FUNCTION and any(isinstance(each, Called) for each in function.__code__.co_consts)


def mentions_main(code):
    """Returns whether code, or a function defined in it, uses the name."""
    inner = (each for each in code.co_consts if isinstance(each, type(code)))
    return "main" in code.co_names or any(map(mentions_main, inner))


def calls_main(tree):
    """Returns whether a top-level statement calls main by name: for one that code has made."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, DEFINITIONS):
            continue
        if isinstance(node, _ast.Call) and isinstance(node.func, _ast.Name) and node.func.id == "main":
            return True
        for field in node._fields:
            child = getattr(node, field, None)
            children = child if isinstance(child, list) else (child,)
            pending.extend(each for each in children if isinstance(each, _ast.AST))
    return False
