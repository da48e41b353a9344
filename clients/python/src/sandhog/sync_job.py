"""A submitted job, for programs without an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .async_job import AsyncJob
    from .output import Output
    from .portal import Portal
    from .result import Result


class Job:
    r"""A submitted job. Dropping the object leaves the job running.

    As a context manager it cancels the job if the block is left before the job's end.

    Attributes:
        id: The job's id.

    Example:
        >>> job = client.submit("print('hello')")
        >>> job.wait().stdout
        'hello\n'
    """

    def __init__(self, portal: Portal, job: AsyncJob) -> None:
        self.id = job.id
        self._portal = portal
        self._job = job

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._portal.call(self._job.__aexit__(kind, error, traceback))

    def wait(self, timeout: float | None = None) -> Result:
        """Waits for the result, without end unless `timeout` is set.

        Raises:
            ResultTimeoutError: No result arrived within `timeout` seconds. The job continues.
            RedisError: Redis cannot be reached.

        Example:
            >>> client.submit("6 * 7").wait(timeout=60).value
            42
        """
        return self._portal.call(self._job.wait(timeout))

    def result(self) -> Result | None:
        """Returns the result, or None if the job has not ended.

        Raises:
            RedisError: Redis cannot be reached.

        Example:
            >>> with client.submit("while True: pass") as job:
            ...     print(job.result())
            None
        """
        return self._portal.call(self._job.result())

    def cancel(self) -> None:
        """Requests the end of the job. A job that has ended keeps its result.

        Raises:
            RedisError: Redis cannot be reached.

        Example:
            >>> job = client.submit("while True: pass")
            >>> job.cancel()
            >>> job.wait().outcome.value
            'cancelled'
        """
        self._portal.call(self._job.cancel())

    def output(self) -> Iterator[Output]:
        r"""Yields the output from its beginning, while the program prints it, until the job ends.

        Raises:
            RedisError: Redis cannot be reached.

        Example:
            >>> with client.submit("print('one'); print('two')") as job:
            ...     "".join(piece.text for piece in job.output())
            'one\ntwo\n'
        """
        return self._portal.iterate(self._job.output())
