"""Spares a forked process page faults, which cost it more than most of what it does between them.

A fork copies the page tables of memory that the process wrote to, but not those of files it only reads: there the
fork starts with nothing mapped, and faults its way through the interpreter. `keep_mapped` makes these files look
written to, so that forks start with what their parent had touched. It is for the interpreter and what it was linked
with, and so to be called before anything is imported: of libraries of many megabytes a program uses little, and
copying their tables for every fork costs more than it spares (measured with pandas: 7 % more CPU time a job).

Symbols are another matter: a library looks each one up when it is first called, and a fork looks up for itself what
its parent never called. For that there is no call: start the process with LD_BIND_NOW set.

Nothing depends on either. Where a kernel refuses a step, that file stays as it was.
"""

import posix


def keep_mapped():
    """Has every later fork inherit what is mapped of the files that this process has mapped by now."""
    try:
        with open("/proc/self/maps") as table:
            mappings = table.read().splitlines()
        memory = posix.open("/proc/self/mem", posix.O_RDWR | posix.O_CLOEXEC)
    except OSError:
        return
    for mapping in mappings:
        addresses, rights, _offset, _device, inode = mapping.split(None, 5)[:5]
        if inode != "0" and rights in ("r--p", "r-xp"):
            look_written_to(memory, int(addresses.partition("-")[0], 16))
    posix.close(memory)


def look_written_to(memory, address):
    """Writes a byte as it is: of that page, and no other, the kernel makes a copy, and minds the mapping from then on."""
    try:
        posix.pwrite(memory, posix.pread(memory, 1, address), address)
    except OSError:
        pass
