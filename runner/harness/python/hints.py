"""A line for standard error that explains an exception by a restriction of the sandbox.

The harness loads this file when a program ends with an exception.
"""

MAX_CHAIN = 16
UNREACHABLE = (100, 101, 113)  # ENETDOWN, ENETUNREACH, EHOSTUNREACH
NO_NETWORK = "note: this sandbox has no network\n"


def hint(error):
    """Returns the line, or an empty string if no restriction explains the exception."""
    chain = []
    while error is not None and len(chain) < MAX_CHAIN:
        chain.append(error)
        error = error.__cause__ or error.__context__
    for each in chain:
        kind = type(each)
        if kind is ModuleNotFoundError and each.name:
            return missing(each.name.partition(".")[0])
        if kind.__name__ == "gaierror" and kind.__module__ == "socket":
            return NO_NETWORK
        if isinstance(each, OSError) and each.errno in UNREACHABLE:
            return NO_NETWORK
    return ""


def missing(name):
    from importlib.util import find_spec

    try:
        if find_spec(name) is not None:
            return ""
    except Exception:
        pass
    return (
        "note: this image has no module %s, the job brought no file of that name, and there is no "
        "network to install it from; `sandhog images list` shows the images\n" % ascii(name)
    )
