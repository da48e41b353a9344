"""A thread that flushes standard output while a program prints a lot. streams.py starts it.

Output waits at most AGE seconds, except while C code holds the interpreter's lock. All of it is
written before another program or process can write. If a program prints a lot and is killed or
calls `os._exit`, its output of the last AGE seconds is lost.
"""

import _thread
import posix
import sys

AGE = 0.01  # seconds
LITTLE = 2048  # bytes within AGE
CALM = 5  # times AGE with little output, until lines are written at once again
OWN_FLUSHES = 64  # writes within AGE, of less than LITTLE bytes each: the program flushes by itself
REST = 64  # checks of the speed that streams.py skips in that case
PATIENCE = 1  # seconds to wait for the thread: a signal handler may have interrupted a write

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
    """Runs a thread that flushes, while it is needed."""

    def __init__(self, output):
        self.output = output
        self.text = output.text
        # While there is a thread: a lock to stop it, and a lock that is free once it has stopped.
        self.locks = None
        posix.register_at_fork(before=self.stop)
        sys.addaudithook(self.on_audit_event)

    def start(self):
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
        """Runs as the thread."""
        try:
            self.text.reconfigure(line_buffering=False)
            self.flush_on(stop)
        except BaseException:
            pass  # The program closed or detached the stream.
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

    def stop(self):
        """Ends the thread. All output is written, and lines are written at once again."""
        locks = self.locks
        if locks is None:
            return
        stop, stopped = locks
        try:
            stop.release()
        except RuntimeError:
            pass  # Another thread has released it already.
        if stopped.acquire(timeout=PATIENCE):
            stopped.release()

    def flush_now(self):
        if self.locks is not None:
            try:
                self.text.flush()
            except (RuntimeError, ValueError):
                pass  # Called during a write of the stream itself, or the program closed it.

    def on_audit_event(self, event, _arguments):
        if event in STARTS:
            self.flush_now()
