"""Prepares a process's memory before it forks, so that each fork has less work with its own.

In a fork that runs a small program, this work costs more CPU time than most of its other work.

A fork copies the page tables of the memory that its parent has written to, entry by entry, and
removes them entry by entry when it ends. One entry of a huge page replaces 512 entries.
`remap_code_to_huge_pages` copies the interpreter's code into huge pages.
`remap_heap_to_huge_pages` moves the memory that the process has allocated so far into huge pages.
The kernel splits a huge page of the heap when a fork writes to it, but its page tables are still
copied and removed faster. The code is never written to, and a fork that finds all of it mapped has
no page faults to map it. (The alternative, forks that
start with the pages of the interpreter's and its libraries' *files* mapped, was slower the more
files there were.)

Measured with forks that run a small program, alternating: 1.2 ms of CPU each instead of 1.6. With
pandas: 7.9 ms instead of 9.0.

A fork also copies each page that it writes to, which takes 2 µs per page. `warm_up` reduces the
number of such pages. `predict_dirty_pages` predicts the remaining ones, so that a fork can have
them copied while it waits for its program.

Symbols need another solution: a library looks up a symbol at its first call, and a fork repeats
each look-up that its parent has not made. No function here changes that; start the process with
LD_BIND_NOW set.

All of this is optional. Where the kernel refuses a step or has no huge pages, the memory stays as
it was.
"""

import ctypes
import posix
import sys

HUGE_BYTES = 2 << 20

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_PRIVATE, MAP_ANONYMOUS = 2, 32
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
MADV_HUGEPAGE = 14
MADV_COLLAPSE = 25

PAGE_BYTES = posix.sysconf("SC_PAGESIZE")
# Flags in the entries of /proc/self/pagemap.
PRESENT, FILE_PAGE, EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
MAX_REPORTED_PAGES = 4096  # pages reported by a fork
MAX_PREDICTED_PAGES = 512

FAILED = ctypes.c_void_p(-1).value
SIZE = ctypes.c_size_t
POINTER = ctypes.c_void_p

libc = ctypes.CDLL(None)
libc.mmap.restype = libc.mremap.restype = POINTER
libc.mmap.argtypes = POINTER, SIZE, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
libc.mremap.argtypes = POINTER, SIZE, SIZE, ctypes.c_int, POINTER
libc.munmap.argtypes = POINTER, SIZE
libc.madvise.argtypes = libc.mprotect.argtypes = POINTER, SIZE, ctypes.c_int


def mappings():
    """Returns the process's memory mappings as tuples: begin, end, permissions, inode.

    The inode is "0" for memory without a file.
    """
    try:
        with open("/proc/self/maps") as table:
            lines = table.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        addresses, rights, _offset, _device, inode = line.split(None, 5)[:5]
        begin, _dash, end = addresses.partition("-")
        found.append((int(begin, 16), int(end, 16), rights, inode))
    return found


def whole_huge_pages(begin, end):
    """Returns the begin and end of the whole huge pages within this range."""
    return -(-begin // HUGE_BYTES) * HUGE_BYTES, end // HUGE_BYTES * HUGE_BYTES


def remap_code_to_huge_pages():
    """Moves the interpreter's code, and the constants next to it, into huge pages."""
    stretches = []
    for begin, end, rights, inode in mappings():
        if inode == "0" or rights not in ("r--p", "r-xp"):
            continue
        code = end - begin if rights == "r-xp" else 0
        if stretches and stretches[-1][1:3] == [begin, inode]:
            stretches[-1][1] = end
            stretches[-1][3] += code
        else:
            stretches.append([begin, end, inode, code])
    if stretches:
        # The interpreter's executable or library has the most code of all files.
        begin, end, _inode, _code = max(stretches, key=lambda stretch: stretch[3])
        move_to_huge_pages(*whole_huge_pages(begin, end))


def move_to_huge_pages(begin, end):
    """Replaces a mapped range by a copy in executable huge pages, if the kernel grants them."""
    size = end - begin
    if size <= 0:
        return
    length = size + HUGE_BYTES
    room = libc.mmap(None, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if room == FAILED:
        return
    copy, _end = whole_huge_pages(room, room + length)
    libc.madvise(copy, size, MADV_HUGEPAGE)
    ctypes.memmove(copy, begin, size)
    is_huge = (
        libc.madvise(copy, size, MADV_COLLAPSE) == 0
        and libc.mprotect(copy, size, PROT_READ | PROT_EXEC) == 0
    )
    # The move is atomic and the bytes are the same. So it is safe although the code that makes this
    # call lies in the range itself.
    moved = is_huge and libc.mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, begin) == begin
    end_of_room = room + length
    left = [(room, copy), (copy + size, end_of_room)] if moved else [(room, end_of_room)]
    for first, last in left:
        if last > first:
            libc.munmap(first, last - first)


def remap_heap_to_huge_pages():
    """Moves the memory that this process has allocated so far into huge pages."""
    for begin, end, rights, inode in mappings():
        if rights == "rw-p" and inode == "0":
            for page in range(*whole_huge_pages(begin, end), HUGE_BYTES):
                libc.madvise(page, HUGE_BYTES, MADV_COLLAPSE)


def warm_up(harness, run):
    """Runs a small program in this process. It changes nothing but the interpreter's memory.

    An interpreter creates many structures at their first use: the specialised code of a function,
    the caches of a type, allocation pools. Forks then find them made, and need not copy the pages
    that creating them would write to.
    """
    nowhere = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    output = posix.dup(1)
    before = harness.CHANNEL, sys.path[:], sys.argv, sys.modules["__main__"]
    posix.dup2(nowhere, 1)
    harness.CHANNEL = nowhere
    try:
        run(harness.prepare())
        sys.stdout.flush()
    finally:
        posix.dup2(output, 1)
        harness.CHANNEL, sys.path[:], sys.argv, sys.modules["__main__"] = before
        harness.process = None
        posix.close(output)
        posix.close(nowhere)


def predict_dirty_pages(harness, run):
    """Predicts the memory that a fork writes to while it runs a program: (address, size) pairs.

    A fork that waits for its program can have these pages copied meanwhile. Otherwise it would
    copy them one by one, at the first write to each, while its program runs.
    """
    try:
        pages = dirty_pages(harness, run) - dirty_pages(harness, lambda _module: None)
    except OSError:
        return []
    found = []
    for page in sorted(pages)[:MAX_PREDICTED_PAGES]:
        if found and page == found[-1][1]:
            found[-1][1] = page + PAGE_BYTES
        else:
            found.append([page, page + PAGE_BYTES])
    return [(begin, end - begin) for begin, end in found]


def dirty_pages(harness, run):
    """Returns the pages that a fork of this process has written to after it has called `run`.

    The pages that the fork writes to while it reports them are included.
    """
    stretches = [(begin, end) for begin, end, rights, _inode in mappings() if rights == "rw-p"]
    reader, writer = posix.pipe()
    child = posix.fork()
    if child == 0:
        try:
            posix.dup2(posix.open("/dev/null", posix.O_RDWR), 1)
            harness.CHANNEL = 1
            run(harness.prepare())
            sys.stdout.flush()
            pages = private_pages(stretches)
            pages = pages[:MAX_REPORTED_PAGES]
            posix.write(writer, b"".join(page.to_bytes(8, "little") for page in pages))
        finally:
            posix._exit(0)
    posix.close(writer)
    pages = memoryview(posix.read(reader, MAX_REPORTED_PAGES * 8)).cast("Q").tolist()
    posix.close(reader)
    posix.waitpid(child, 0)
    return set(pages)


def private_pages(stretches):
    """Returns the pages in these ranges that only this process maps and that belong to no file.

    In a fork these are the pages that it has written to.
    """
    try:
        table = posix.open("/proc/self/pagemap", posix.O_RDONLY)
    except OSError:
        return []
    found = []
    for begin, end in stretches:
        entries = posix.pread(table, (end - begin) // PAGE_BYTES * 8, begin // PAGE_BYTES * 8)
        for number, entry in enumerate(memoryview(entries).cast("Q")):
            if entry & (PRESENT | FILE_PAGE | EXCLUSIVE) == PRESENT | EXCLUSIVE:
                found.append(begin + number * PAGE_BYTES)
    posix.close(table)
    return found
