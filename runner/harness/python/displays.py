"""Turns the objects that a program shows into displays, and writes these to descriptor 3.

A display is one object in several forms, each with its mime type, as in notebooks: the results of
the object's methods `_repr_mimebundle_`, `_repr_html_`, `_repr_png_` and so on, a matplotlib figure
as PNG, and `repr()` as text/plain. Each display is a message of the harness's channel; display.rs
of the protocol defines its body. Displays come before the harness's answer.

This code runs in the program's own process, so neither the runner nor the worker trusts its output.
It checks only what helps a well-behaved program. A form whose method raises is reported on standard
error and left out. For a display above MOST, an empty one is written. A process that the program
forked shows nothing, because its bytes could come between those of its parent.

The harness loads this file when a program shows its first object; the zygote loads it before it
makes clones. The loader passes two functions: `value_json` writes plain data as JSON, and
`is_program` returns whether this process is the program's own.
"""

import posix
import sys

import _thread

CHANNEL = 3
DISPLAY = b"D"  # kind of a message
MOST = 8 << 20  # bytes of one display: the most that a job may have
MOST_FORMS = 16
METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("application/pdf", "_repr_pdf_"),
    ("text/latex", "_repr_latex_"),
    ("application/json", "_repr_json_"),
    ("application/javascript", "_repr_javascript_"),
)

writing = _thread.RLock()
busy = False
closed = False
MARK = "_sandhog_shown"  # attribute of a figure that was shown


def display(things, raw=False, include=None, exclude=None, **_options):
    """Shows each object, or with `raw` each mapping from mime types to data."""
    for thing in things:
        forms = dict(thing) if raw else forms_of(thing, include, exclude)
        if not raw:
            forms.setdefault("text/plain", plain(thing))
        if include is not None:
            forms = {mime: data for mime, data in forms.items() if mime in include}
        if exclude is not None:
            forms = {mime: data for mime, data in forms.items() if mime not in exclude}
        write(forms)
        if is_figure(thing):
            setattr(thing, MARK, True)
            thing.stale = False


def show_rest(value):
    """Shows the program's value, if it has a rich form, and the figures that are still open."""
    figures = open_figures()
    if value is not None and not any(value is each for each in figures):
        forms = forms_of(value)
        if forms:
            forms.setdefault("text/plain", plain(value))
            write(forms)
    for figure in figures:
        # Skips a figure that was shown already and has not changed since.
        if figure.stale or not hasattr(figure, MARK):
            show_figure(figure)


def show(*_arguments, **_options):
    """Replaces `matplotlib.pyplot.show`: shows the open figures, and closes them."""
    for figure in open_figures():
        show_figure(figure)
    sys.modules["matplotlib.pyplot"].close("all")


def show_figure(figure):
    # A figure on which nothing was drawn has only its background.
    if len(figure.get_children()) > 1:
        display((figure,))


def open_figures():
    """Returns the open figures, in the order of their numbers."""
    pylab = sys.modules.get("matplotlib._pylab_helpers")
    managers = pylab.Gcf.figs if pylab is not None else {}
    return [managers[number].canvas.figure for number in sorted(managers)]


def is_figure(thing):
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(thing, module.Figure)


def forms_of(thing, include=None, exclude=None):
    """Returns the rich forms of an object, by mime type."""
    forms = {}
    bundle = ask(thing, "_repr_mimebundle_", include=include, exclude=exclude)
    if isinstance(bundle, dict):
        forms.update(bundle)
    for mime, method in METHODS:
        # An object with both a PNG and a JPEG form would be drawn twice for no gain.
        if mime not in forms and not (mime == "image/jpeg" and "image/png" in forms):
            data = ask(thing, method)
            if data is not None:
                forms[mime] = data
    if "image/png" not in forms and is_figure(thing):
        data = guarded(thing, "savefig", lambda: drawn(thing))
        if data is not None:
            forms["image/png"] = data
    return forms


def drawn(figure):
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def ask(thing, name, **options):
    """Calls a method of the object's type. Returns its result, without the metadata beside it."""
    if not hasattr(type(thing), name):
        return None
    answer = guarded(thing, name, lambda: getattr(thing, name)(**options))
    return answer[0] if isinstance(answer, tuple) and answer else answer


def guarded(thing, name, call):
    """Calls `call`, and reports an exception on standard error. There is no form then.

    AttributeError and NotImplementedError only mean that the object does not have this form. They
are not reported.
    """
    try:
        return call()
    except (AttributeError, NotImplementedError):
        return None
    except Exception as error:
        tell("display: %s of %s raised %s\n" % (name, type(thing).__name__, type(error).__name__))
        return None


def tell(line):
    try:
        sys.stderr.write(line)
    except Exception:
        pass


def plain(thing):
    try:
        return repr(thing)
    except Exception as error:
        return "<%s whose repr() raised %s>" % (type(thing).__name__, type(error).__name__)


def is_json(mime):
    return mime == "application/json" or mime.endswith("+json")


def is_text(mime):
    return (
        mime.startswith("text/")
        or mime.endswith("+xml")
        or mime in ("application/xml", "application/javascript")
    )


def as_bytes(mime, data):
    """Returns a form's bytes. None if the data do not fit the mime type or are too long."""
    if is_json(mime):
        text = value_json(data)
        return None if text is None else text.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data) if len(data) <= MOST else None
    if not isinstance(data, str) or len(data) > 2 * MOST:
        return None
    if is_text(mime):
        return data.encode("utf-8", "replace")
    # In notebooks, the text of a binary form is base64.
    import binascii

    return binascii.a2b_base64(data)


def write(forms):
    """Writes one display. If it is too long or a form cannot be encoded, writes an empty one."""
    pieces = []
    for mime, data in forms.items():
        try:
            name, body = mime.lower().encode("ascii"), as_bytes(mime.lower(), data)
            head = bytes((len(name),)) + name
        except Exception:
            body = None
        if body is None:
            pieces = []
            break
        pieces += (head, len(body).to_bytes(4, "big"), body)
    length = sum(map(len, pieces))
    if length > MOST or len(pieces) > 3 * MOST_FORMS:
        pieces, length = [], 0
    send(b"".join((DISPLAY, length.to_bytes(4, "big"), *pieces)))


def send(message):
    global busy
    if not is_program():
        return
    with writing:
        if busy:
            return  # A signal handler interrupted the writing of another display.
        busy = True
        rest = memoryview(message)
        try:
            while rest and not closed:
                rest = rest[posix.write(CHANNEL, rest) :]
        except OSError:
            pass  # The program has closed the channel.
        finally:
            busy = False


def close():
    """Stops all displays. The answer follows, and a thread of the program may still be running."""
    global closed
    with writing:
        closed = True


def find_pyplot(name, path, target):
    """Finds `matplotlib.pyplot`, and has its `show` replaced when it is imported."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path, target)
        if spec is not None:
            break
    else:
        return None
    loader = spec.loader
    execute = loader.exec_module

    def execute_and_see_to(module):
        del loader.exec_module
        execute(module)
        module.show = show

    loader.exec_module = execute_and_see_to
    return spec
