"""Threads of a zygote's clones: the number that libraries start, and the size of their stacks.

A numeric library reads its number of threads from an environment variable when it is imported. The
zygote imports it, but a clone with another CPU share needs another number.
"""

import ctypes

STACK = 8 << 20
ATTRIBUTES = 256  # bytes, more than a pthread_attr_t has

# In the wheels of NumPy and SciPy, OpenBLAS's functions have a prefix, a suffix or both.
LIBRARIES = (
    (
        "openblas",
        "OPENBLAS_NUM_THREADS",
        (
            "openblas_set_num_threads",
            "openblas_set_num_threads64_",
            "scipy_openblas_set_num_threads",
            "scipy_openblas_set_num_threads64_",
        ),
    ),
    ("libgomp", "OMP_NUM_THREADS", ("omp_set_num_threads",)),
    ("libomp", "OMP_NUM_THREADS", ("omp_set_num_threads",)),
    ("libiomp", "OMP_NUM_THREADS", ("omp_set_num_threads",)),
)

libc = ctypes.CDLL(None)


def keep_stacks_small():
    """Gives threads a stack of the usual size. By default it is this process's stack limit."""
    attributes = ctypes.create_string_buffer(ATTRIBUTES)
    steps = (
        (libc.pthread_attr_init, attributes),
        (libc.pthread_attr_setstacksize, attributes, ctypes.c_size_t(STACK)),
        (libc.pthread_setattr_default_np, attributes),
    )
    for call, *arguments in steps:
        errno = call(*arguments)
        if errno != 0:
            raise OSError(errno, "the stack size of threads cannot be set")


def pools():
    """Returns the thread pools of the libraries in this process."""
    return list(find_pools())


def find_pools():
    """Yields each library with a thread pool: its variable and the function that resizes it."""
    with open("/proc/self/maps") as maps:
        paths = {words[5] for words in map(str.split, maps) if len(words) == 6}
    for path in sorted(paths):
        name = path.rpartition("/")[2]
        for part, variable, symbols in LIBRARIES:
            if part not in name:
                continue
            loaded = ctypes.CDLL(path)
            resize = next(filter(None, (getattr(loaded, symbol, None) for symbol in symbols)), None)
            if resize is not None:
                resize.restype = None
                yield variable, resize


def resize(pools, variables):
    """Sets each pool to the number of threads in its variable."""
    for variable, change in pools:
        count = variables.get(variable, "")
        if count.isdecimal() and 0 < int(count) < 1 << 16:
            change(int(count))
