"""Standard output: written at once while a program prints little, in blocks while it prints a lot.

A write for each line costs several times the CPU time of the line itself. So once WRITES writes
took less than FAST seconds, the thread of flusher.py takes over: it turns line buffering off and
flushes every few milliseconds, until the program prints little. Standard output is flushed before
each write to standard error.

The harness loads this file for every program, so it is kept short.
"""

import _io
import sys

WRITES = 256
FAST = 0.05
REST = 64  # times WRITES, without a check of the speed

write = _io.FileIO.write
monotonic = None


class Output(_io.FileIO):
    """The file of standard output."""

    writes = 0
    written = 0
    since = 0.0
    rest = 0
    flusher = None  # created at its first use
    text = None

    def write(self, data):
        self.writes += 1
        if not self.writes & WRITES - 1:
            self.look()
        count = write(self, data)
        if count is not None:
            self.written += count
        return count

    def look(self):
        """Starts the flusher's thread if the last writes came fast."""
        global monotonic
        if monotonic is None:
            from time import monotonic
        before, self.since = self.since, monotonic()
        if self.rest:
            self.rest -= 1
        elif self.since - before < FAST and self.text.line_buffering:
            try:
                if self.flusher is None:
                    self.flusher = load("flusher").Flusher(self)
                self.flusher.start()
            except Exception:
                self.rest = REST  # No thread can be started.

    def settle(self):
        """Ends the flusher's thread, if there is one, after all output is written."""
        if self.flusher is not None:
            self.flusher.stop()


class Errors(_io.FileIO):
    """The file of standard error."""

    output = None

    def write(self, data):
        if self.output.flusher is not None:
            self.output.flusher.flush_now()
        return write(self, data)


def text(raw, like, name):
    """Returns a text stream over the file `raw`, with the encoding and error handler of `like`."""
    raw.name = name
    buffer = _io.BufferedWriter(raw)
    stream = _io.TextIOWrapper(buffer, like.encoding, like.errors, "\n", line_buffering=True)
    stream.mode = "w"
    return stream


def replace():
    """Replaces the program's output streams. Returns a function to call at the program's end."""
    if sys.stdout is None or sys.stderr is None:
        return lambda: None
    output, errors = Output(1, "w", closefd=False), Errors(2, "w", closefd=False)
    output.text = sys.stdout = sys.__stdout__ = text(output, sys.stdout, "<stdout>")
    errors.output = output
    sys.stderr = sys.__stderr__ = text(errors, sys.stderr, "<stderr>")
    return output.settle
