"""A thread that flushes standard output while a program prints much. streams.py says when.

Nothing that was printed waits longer than AGE, except while C code holds the interpreter's lock. Before another
program or process can write, all of it is written. A program that is killed or ends by `os._exit` while it prints much
loses the last AGE seconds of its output.
"""

import _thread
import posix
import sys

AGE = 0.01  # seconds
LITTLE = 2048  # bytes within AGE
CALM = 5  # times AGE with little output, until lines are written at once again
OWN_FLUSHES = 64  # writes within AGE, of less than LITTLE bytes each: the program flushes by itself
REST = 64  # looks of streams.py that are passed over then
PATIENCE = 1  # seconds to wait for the thread: a signal's handler may have interrupted a write

# Audit events after which another program or process may write, or this process may end.
STARTS = frozenset(
    (
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.kill",
        "os.posix_spawn",
        "os.system",
        "pty.spawn",
        "signal.raise_signal",
        "subprocess.Popen",
    )
)


class Flusher:
    """Has a thread at times."""

    def __init__(self, output):
        self.output = output
        self.text = output.text
        self.locks = None  # while there is a thread: one to stop it by, one that is free when it has stopped
        posix.register_at_fork(before=self.give_back)
        sys.addaudithook(self.heed)

    def take_over(self):
        if self.locks is not None:
            return
        stop, stopped = _thread.allocate_lock(), _thread.allocate_lock()
        stop.acquire()
        stopped.acquire()
        self.locks = stop, stopped
        try:
            _thread.start_new_thread(self.run, self.locks)
        except BaseException:
            self.locks = None
            raise

    def run(self, stop, stopped):
        """The thread."""
        try:
            self.text.reconfigure(line_buffering=False)
            self.flush_on(stop)
        except BaseException:
            pass  # The program closed or detached it.
        finally:
            try:
                self.text.reconfigure(line_buffering=True)
            except BaseException:
                pass
            self.locks = None
            stopped.release()

    def flush_on(self, stop):
        output, calm = self.output, 0
        while calm < CALM:
            writes, written = output.writes, output.written
            if stop.acquire(timeout=AGE):
                return
            writes, written = output.writes - writes, output.written - written
            if writes >= OWN_FLUSHES and written < writes * LITTLE:
                output.rest = REST
                return
            self.text.flush()
            calm = calm + 1 if written < LITTLE else 0

    def give_back(self):
        """Ends the thread: lines are written at once again, and all that was printed is written."""
        locks = self.locks
        if locks is None:
            return
        stop, stopped = locks
        try:
            stop.release()
        except RuntimeError:
            pass  # Another thread did so before.
        if stopped.acquire(timeout=PATIENCE):
            stopped.release()

    def flush_now(self):
        if self.locks is not None:
            try:
                self.text.flush()
            except (RuntimeError, ValueError):
                pass  # Called from within a write of its own, or the program closed it.

    def heed(self, event, _arguments):
        if event in STARTS:
            self.flush_now()
