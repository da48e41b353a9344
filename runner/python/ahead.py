"""Spares a forked process work on its memory, which costs it more than most of what it does besides.

A fork copies the page tables of memory that its parent wrote to, entry by entry, and takes them down entry by entry
when it ends. In huge pages one entry stands for 512. `gather_code` copies the interpreter's code into some, and
`gather_heap` collects in some what the process has allocated by now. Those of the heap are taken apart where a fork
writes to them, but even so are copied and taken down faster; nobody writes to the code, and a fork that finds it all
mapped is spared the page faults by which it would map it. (To have forks start with the pages of the interpreter's
and its libraries' *files* mapped instead was slower the more of them there were.)

Measured with forks that run a small program, in turns: 1.2 ms of CPU each instead of 1.6. With pandas 7.9 instead of 9.0.

A fork also makes a copy of every page that it writes to, 2 µs each. `rehearse` leaves it fewer to write to, and `foresee`
tells which they will be, so that a fork can have them copied while it has nothing else to do.

Symbols are another matter: a library looks each one up when it is first called, and a fork looks up for itself what
its parent never called. For that there is no call: start the process with LD_BIND_NOW set.

Nothing depends on any of it. Where a kernel refuses a step, or has no huge pages, that memory stays as it was.
"""

import ctypes
import posix
import sys

HUGE = 2 << 20

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_PRIVATE, MAP_ANONYMOUS = 2, 32
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
MADV_HUGEPAGE = 14
MADV_COLLAPSE = 25

# In entries of /proc/self/pagemap.
PAGE = posix.sysconf("SC_PAGESIZE")
PRESENT, OF_A_FILE, ALONE = 1 << 63, 1 << 61, 1 << 56
MOST_WRITTEN = 4096  # told at once
MOST_FORESEEN = 512

FAILED = ctypes.c_void_p(-1).value
SIZE = ctypes.c_size_t
PLACE = ctypes.c_void_p

libc = ctypes.CDLL(None)
libc.mmap.restype = libc.mremap.restype = PLACE
libc.mmap.argtypes = PLACE, SIZE, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
libc.mremap.argtypes = PLACE, SIZE, SIZE, ctypes.c_int, PLACE
libc.munmap.argtypes = PLACE, SIZE
libc.madvise.argtypes = libc.mprotect.argtypes = PLACE, SIZE, ctypes.c_int


def mappings():
    """What is mapped: where each begins and ends, its rights, its file's number, which is no file's if that is 0."""
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


def whole(begin, end):
    """The huge pages that fit between these."""
    return -(-begin // HUGE) * HUGE, end // HUGE * HUGE


def gather_code():
    """Puts the interpreter's code, and its constants beside it, into huge pages."""
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
        # The interpreter's file, or its library's, has the most.
        begin, end, _inode, _code = max(stretches, key=lambda stretch: stretch[3])
        move_to_huge(*whole(begin, end))


def move_to_huge(begin, end):
    """Replaces what is mapped there by the same bytes in huge pages, all of it executable, if there are any."""
    size = end - begin
    if size <= 0:
        return
    room = libc.mmap(None, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if room == FAILED:
        return
    copy, _end = whole(room, room + size + HUGE)
    libc.madvise(copy, size, MADV_HUGEPAGE)
    ctypes.memmove(copy, begin, size)
    whether = libc.madvise(copy, size, MADV_COLLAPSE) == 0 and libc.mprotect(copy, size, PROT_READ | PROT_EXEC) == 0
    # At once, and the same bytes: nobody notices, though this very call is made from there.
    moved = whether and libc.mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, begin) == begin
    left = [(room, copy), (copy + size, room + size + HUGE)] if moved else [(room, room + size + HUGE)]
    for first, last in left:
        if last > first:
            libc.munmap(first, last - first)


def gather_heap():
    """Has huge pages hold what this process has allocated by now."""
    for begin, end, rights, inode in mappings():
        if rights == "rw-p" and inode == "0":
            for page in range(*whole(begin, end), HUGE):
                libc.madvise(page, HUGE, MADV_COLLAPSE)


def rehearse(harness, run):
    """Has this very process run a small program, which leaves no trace but in the interpreter's memory.

    An interpreter makes much when it first does something: a function's specialised code, a type's caches, pools to
    allocate from. Forks find it made, and need no copies of the pages in which it would be written.
    """
    nowhere = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    output = posix.dup(1)
    before = harness.CHANNEL, sys.path[:], sys.argv, sys.modules["__main__"]
    posix.dup2(nowhere, 1)
    harness.CHANNEL = nowhere
    try:
        run(harness.stage())
        sys.stdout.flush()
    finally:
        posix.dup2(output, 1)
        harness.CHANNEL, sys.path[:], sys.argv, sys.modules["__main__"] = before
        harness.process = None
        posix.close(output)
        posix.close(nowhere)


def foresee(harness, run):
    """Which memory of this process a fork writes while it runs a program: stretches, as places and sizes.

    One that waits for its program can have its copies of these pages made meanwhile, and need not make them, one by one
    as it meets them, when its program is there and somebody waits for it.
    """
    try:
        pages = written(harness, run) - written(harness, lambda _module: None)
    except OSError:
        return []
    found = []
    for page in sorted(pages)[:MOST_FORESEEN]:
        if found and page == found[-1][1]:
            found[-1][1] = page + PAGE
        else:
            found.append([page, page + PAGE])
    return [(begin, end - begin) for begin, end in found]


def written(harness, run):
    """Which pages of this process a fork writes until this has run in it, and until it has told."""
    stretches = [(begin, end) for begin, end, rights, _inode in mappings() if rights == "rw-p"]
    told, tell = posix.pipe()
    child = posix.fork()
    if child == 0:
        try:
            posix.dup2(posix.open("/dev/null", posix.O_RDWR), 1)
            harness.CHANNEL = 1
            run(harness.stage())
            sys.stdout.flush()
            pages = own_pages(stretches)
            posix.write(tell, b"".join(page.to_bytes(8, "little") for page in pages[:MOST_WRITTEN]))
        finally:
            posix._exit(0)
    posix.close(tell)
    pages = memoryview(posix.read(told, MOST_WRITTEN * 8)).cast("Q").tolist()
    posix.close(told)
    posix.waitpid(child, 0)
    return set(pages)


def own_pages(stretches):
    """The pages there that are this process's alone, and of no file: those that a fork wrote."""
    try:
        table = posix.open("/proc/self/pagemap", posix.O_RDONLY)
    except OSError:
        return []
    own = []
    for begin, end in stretches:
        entries = posix.pread(table, (end - begin) // PAGE * 8, begin // PAGE * 8)
        for number, entry in enumerate(memoryview(entries).cast("Q")):
            if entry & (PRESENT | OF_A_FILE | ALONE) == PRESENT | ALONE:
                own.append(begin + number * PAGE)
    posix.close(table)
    return own
