"""Ends a clone of the zygote like an interpreter, but without freeing the modules of libraries.

The steps are those of CPython's `Py_FinalizeEx`, in the same order: the message of SystemExit,
threads, exit handlers, the standard streams, then the program's own modules and all objects that
only they refer to, so that files are closed and finalizers run. The modules of libraries stay,
because freeing them would cost more than most programs. The C library's streams are flushed last.
"""

import atexit
import ctypes
import gc
import posix
import sys

from _weakref import ref
from select import POLLNVAL, poll

# Imported by name, because a program may replace these builtins.
from builtins import BaseException, getattr, isinstance, int, list, str, type

FAILED = 120  # exit code where a standard stream cannot be flushed
PLACES = ("/work/", "/tmp/")  # where a program's own modules may be
PROBE = "__sandhog_probe__"
FIRST_DESCRIPTOR, MOST_DESCRIPTORS = 4, 36  # after the standard streams and the channel

flush_all = ctypes.CDLL(None).fflush
FEW = 1000  # objects that are examined one by one
known = set()  # the names of modules that clones find imported
collections = 0  # by the garbage collector before the program begins
MODULE = type(sys)


descriptors = poll()
for each in range(FIRST_DESCRIPTOR, MOST_DESCRIPTORS):
    descriptors.register(each, 0)


class Probe:
    """An object that lives as long as the module dictionary in which it is placed."""


def begin_program():
    """Begins to collect garbage, but only among the objects that are made from here on.

    Must precede the making of the program's module.
    """
    global collections
    gc.enable()
    gc.freeze()
    collections = count_collections()


def count_collections():
    return sum(generation["collections"] for generation in gc.get_stats())


def exit_like_python(code):
    """Ends the process with the argument of SystemExit."""
    status = status_of(code)
    threading = sys.modules.get("threading")
    if threading is not None:
        quietly(threading._shutdown)
    quietly(atexit._run_exitfuncs)
    if not end_program():
        status = FAILED
    flush_all(None)
    posix._exit(status)


def end_program():
    """Flushes the streams and frees the program. Returns whether all flushes succeeded.

    The zygote also calls it for the small program of its warm-up, because every clone runs this
    code once, and would otherwise copy the pages that the first run of a function writes to.
    """
    # Like Python, reports an error of standard output, but only once.
    flushed = flush_streams(tell_ignored)
    quietly(restore_streams)
    quietly(forget_modules)
    return flush_streams(None) and flushed


def status_of(code):
    """Returns the exit code. A value that is not an exit code is printed, and the code is 1."""
    if code is None:
        return 0
    if isinstance(code, int):
        # Python turns it into a C long, or into -1 if it is too large. The kernel keeps one byte.
        return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
    if sys.stderr is None:
        quietly(lambda: posix.write(2, ("%s\n" % (code,)).encode()))
    else:
        quietly(lambda: sys.stderr.write(str(code)))
        quietly(lambda: sys.stderr.write("\n"))
    return 1


def quietly(call):
    """Calls `call`, and ignores any exception."""
    try:
        call()
    except BaseException:
        pass


def flush_streams(tell):
    """Flushes standard output and standard error. Returns whether both flushes succeeded."""
    flushed = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException as error:
            flushed = False
            if tell is not None and stream is sys.stdout:
                quietly(lambda: tell(error, stream))
    return flushed


def tell_ignored(error, stream):
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__.tb_next))
    sys.stderr.write("Exception ignored in: %r\n%s" % (stream, text))


def restore_streams():
    """Restores the standard streams and hooks that the program may have replaced."""
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    sys.excepthook, sys.displayhook = sys.__excepthook__, sys.__displayhook__
    sys.settrace(None)
    sys.setprofile(None)


def forget_modules():
    """Frees the program's module, its own modules, and all objects that only they refer to."""
    modules = sys.modules
    probes = []
    for name in ["__main__", *brought(modules)]:
        module = modules.pop(name)
        if isinstance(module, MODULE):
            probe = module.__dict__[PROBE] = Probe()
            probes.append(ref(probe))
        module = probe = None
    # Most programs end before the first collection. The youngest generation then holds all of
    # their objects, and it is collected in less time than all three.
    is_young = count_collections() == collections and gc.get_count()[0] < FEW
    # Before the collection, because the collector may close the descriptor of a file in a cycle
    # before the file's buffer is written.
    if is_young or has_files():
        flush_files()
    gc.collect(0 if is_young else 2)
    for probe in probes:
        if probe() is not None:
            for names in gc.get_referrers(probe()):
                forget_names(names)


def has_files():
    """Returns whether the program has left one of the first descriptors open."""
    try:
        closed = [event for _descriptor, event in descriptors.poll(0) if event & POLLNVAL]
    except OSError:
        return True  # The limit on descriptors may be below the number that is polled.
    return len(closed) < MOST_DESCRIPTORS - FIRST_DESCRIPTOR


def brought(modules):
    """Returns the names of the modules that the program has imported from its own files."""
    names = []
    for name in reversed(modules):
        if name in known:
            break
        file = getattr(modules[name], "__file__", None)
        if isinstance(file, str) and file.startswith(PLACES):
            names.append(name)
    return names


def forget_names(names):
    """Clears the names of a module that is still referred to, private names first."""
    private = [name for name in names if name[:1] == "_" and name[1:2] != "_"]
    for name in private + [name for name in names if name != "__builtins__"]:
        names[name] = None
    gc.collect()


def flush_files():
    """Flushes all open files."""
    kind = sys.modules["_io"]._IOBase
    for each in gc.get_objects():
        if isinstance(each, kind) and not each.closed:
            quietly(each.flush)
