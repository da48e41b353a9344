"""Turns what a program shows into displays, and writes them on descriptor 3, before the harness's answer.

A display is one thing in its forms by mime type, as notebooks know them: what its `_repr_mimebundle_`, `_repr_html_`,
`_repr_png_` and so on return, a matplotlib figure as PNG, and `repr()` as text/plain. How it is written stands in the
runner's display.rs.

Nothing here is trusted by anybody: it runs in the program's own process. So it keeps to what is useful to a program
that means well: what raises is told on standard error and left out, a display above MOST is announced by its absence,
and a process that the program forked shows nothing, because its bytes would come between those of its parent.

The harness loads this file when something is shown for the first time, the zygote before it makes clones, and gives it
`value_json`, which writes plain data as JSON, and `is_program`, which says whether this process is the program's own.
"""

import posix
import sys

import _thread

CHANNEL = 3
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
MARK = "_sandhog_shown"  # on a figure that was shown


def display(things, raw=False, include=None, exclude=None, **_options):
    """Shows each thing, or with `raw` each mapping from mime types to data."""
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
    """Shows the program's value, if it has a rich form, and the figures that it left open."""
    figures = open_figures()
    if value is not None and not any(value is each for each in figures):
        forms = forms_of(value)
        if forms:
            forms.setdefault("text/plain", plain(value))
            write(forms)
    for figure in figures:
        # Not again, if nothing was drawn on it since.
        if figure.stale or not hasattr(figure, MARK):
            show_figure(figure)


def show(*_arguments, **_options):
    """What `matplotlib.pyplot.show` does: shows the figures that are open, and closes them."""
    for figure in open_figures():
        show_figure(figure)
    sys.modules["matplotlib.pyplot"].close("all")


def show_figure(figure):
    # One that nothing was drawn on has only its background.
    if len(figure.get_children()) > 1:
        display((figure,))


def open_figures():
    """The open figures, in the order of their numbers."""
    pylab = sys.modules.get("matplotlib._pylab_helpers")
    managers = pylab.Gcf.figs if pylab is not None else {}
    return [managers[number].canvas.figure for number in sorted(managers)]


def is_figure(thing):
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(thing, module.Figure)


def forms_of(thing, include=None, exclude=None):
    """A thing's rich forms by mime type."""
    forms = {}
    bundle = ask(thing, "_repr_mimebundle_", include=include, exclude=exclude)
    if isinstance(bundle, dict):
        forms.update(bundle)
    for mime, method in METHODS:
        # A picture that has both is drawn twice for no gain.
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
    """What a method of the thing's type returns; without the metadata that may come with it."""
    if not hasattr(type(thing), name):
        return None
    answer = guarded(thing, name, lambda: getattr(thing, name)(**options))
    return answer[0] if isinstance(answer, tuple) and answer else answer


def guarded(thing, name, call):
    """Calls; what is raised is told, and no form. What only says that there is none is not worth telling."""
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
    return mime.startswith("text/") or mime.endswith("+xml") or mime in ("application/xml", "application/javascript")


def as_bytes(mime, data):
    """A form's bytes; none when it is nothing that the mime type may have, or too long."""
    if is_json(mime):
        text = value_json(data)
        return None if text is None else text.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data) if len(data) <= MOST else None
    if not isinstance(data, str) or len(data) > 2 * MOST:
        return None
    if is_text(mime):
        return data.encode("utf-8", "replace")
    # As notebooks write it.
    import binascii

    return binascii.a2b_base64(data)


def write(forms):
    """Writes one display. One that is too long, or has a form that cannot be written, is announced and not written."""
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
    send(b"".join((b"D", length.to_bytes(4, "big"), *pieces)))


def send(message):
    global busy
    if not is_program():
        return
    with writing:
        if busy:
            return  # A handler of a signal came in the midst of another display.
        busy = True
        rest = memoryview(message)
        try:
            while rest and not closed:
                rest = rest[posix.write(CHANNEL, rest) :]
        except OSError:
            pass  # Nobody listens: the program closed the channel.
        finally:
            busy = False


def close():
    """Nothing is shown from here on: the answer follows, and a thread of the program may go on."""
    global closed
    with writing:
        closed = True


def find_pyplot(name, path, target):
    """How `matplotlib.pyplot` is imported, with a `show` that shows."""
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
