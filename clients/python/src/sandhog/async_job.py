"""A submitted job, for programs with an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from .errors import ResultTimeoutError
from .output import Output, OutputFollower
from .result import Result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import TracebackType

    from .queue import Queue


class AsyncJob:
    r"""A submitted job. Dropping the object leaves the job running.

    As a context manager it cancels the job if the block is left before the job's end.

    Attributes:
        id: The job's id.

    Example:
        >>> async def main():
        ...     async with sandhog.AsyncSandhog() as client:
        ...         job = await client.submit("print('hello')")
        ...         return (await job.wait()).stdout
        >>> asyncio.run(main())
        'hello\n'
    """

    def __init__(self, queue: Queue, job_id: str, *, own_stream: bool) -> None:
        self.id = job_id
        self._queue = queue
        self._own_stream = own_stream
        self._result: Result | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._result is None and await self.result() is None:
            await self.cancel()

    async def wait(self, timeout: float | None = None) -> Result:  # noqa: ASYNC109
        """Waits for the result, without end unless `timeout` is set. Cancelling it has no effect.

        Raises:
            ResultTimeoutError: No result arrived within `timeout` seconds. The job continues.
            RedisError: Redis cannot be reached.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         job = await client.submit("6 * 7")
            ...         return (await job.wait(timeout=60)).value
            >>> asyncio.run(main())
            42
        """
        if self._result is None:
            self._result = Result.from_wire(await self._wait_raw(timeout))
        return self._result

    async def result(self) -> Result | None:
        """Returns the result, or None if the job has not ended.

        Raises:
            RedisError: Redis cannot be reached.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         async with await client.submit("while True: pass") as job:
            ...             return await job.result()
            >>> asyncio.run(main()) is None
            True
        """
        if self._result is None:
            raw = await self._queue.result(self.id)
            self._result = None if raw is None else Result.from_wire(raw)
        return self._result

    async def cancel(self) -> None:
        """Requests the end of the job. A job that has ended keeps its result.

        Raises:
            RedisError: Redis cannot be reached.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         job = await client.submit("while True: pass")
            ...         await job.cancel()
            ...         return str((await job.wait()).outcome)
            >>> asyncio.run(main())
            'cancelled'
        """
        await self._queue.cancel([self.id])

    async def output(self) -> AsyncIterator[Output]:
        r"""Yields the output from its beginning, while the program prints it, until the job ends.

        Raises:
            RedisError: Redis cannot be reached.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         job = await client.submit("print('hello')")
            ...         return [piece.text async for piece in job.output()]
            >>> asyncio.run(main())
            ['hello\n']
        """
        follower = OutputFollower(self._queue, self.id)
        async for piece in follower.follow(self._raw()):
            yield piece

    async def _raw(self) -> Mapping[str, Any]:
        return (await self.wait()).raw

    async def _wait_raw(self, timeout: float | None) -> Mapping[str, Any]:  # noqa: ASYNC109
        if self._own_stream:
            return await self._queue.wait(self.id, timeout)
        return await self._queue.wait_elsewhere(self.id, timeout)


async def run_with_output(
    job: AsyncJob, on_output: Callable[[Output], object], wait: float | None
) -> Result:
    """Calls `on_output` with each piece of the job's output, and returns the result.

    Cancelling the call, and an exception of `on_output`, cancel the job.

    Raises:
        ResultTimeoutError: No result arrived within `wait` seconds. The job continues.
        RedisError: Redis cannot be reached.
    """
    deadline = asyncio.timeout(wait)
    try:
        async with deadline:
            async for piece in job.output():
                on_output(piece)
            return await job.wait()
    except BaseException as error:
        if isinstance(error, TimeoutError) and deadline.expired():
            raise ResultTimeoutError(job.id, wait or 0) from None
        await asyncio.shield(job.cancel())
        raise
