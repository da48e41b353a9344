"""The client for programs with an event loop. It is the core of the other client too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

from .address import Settings, load_settings
from .async_job import AsyncJob, run_with_output
from .async_schedules import AsyncSchedules
from .errors import OutcomeError, SandhogError
from .job import JobTemplate, infer_template, merged, model_defaults, program_template
from .map_run import MapRun, take_chunk
from .options import JobOptions, ModelOptions, check_names
from .progress import Progress, length_of
from .queue import Queue
from .result import Result
from .tasks import end

if TYPE_CHECKING:
    from types import TracebackType

    from .output import Output

_KEEP_OF_MAP_S = 3_600
CONCURRENCY = 256
"""Default bound of the unfinished jobs of a map."""

OnOutput = Callable[["Output"], object]


class AsyncSandhog:
    r"""A client of one namespace, for programs with an event loop.

    One object serves any number of calls at once. It reads the results of all its jobs on one
    connection, without polling.

    Args:
        url: Address of Redis. If left out: `SANDHOG_REDIS_URL`, else the settings files of
            `sandhog`, else a running `sandhog up` of this user, else `redis://127.0.0.1:6379`.
        namespace: The queue; `SANDHOG_NAMESPACE` or `default` if left out.
        outage_timeout: Seconds for which calls wait for a Redis that went away.
        defaults: Options for every job of the client.

    Example:
        >>> async def main():
        ...     async with sandhog.AsyncSandhog() as client:
        ...         return (await client.run("print(6 * 7)")).stdout
        >>> asyncio.run(main())
        '42\n'
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        outage_timeout: float = 30.0,
        **defaults: Unpack[JobOptions],
    ) -> None:
        check_names(defaults)
        self._settings: Settings = load_settings(url, namespace)
        self._defaults = defaults
        self._queue = Queue(self._settings, outage_timeout)
        self.schedules = AsyncSchedules(self._settings, defaults)
        """The schedules of the namespace."""

    @property
    def address(self) -> str:
        """The address of Redis, without user and password.

        Example:
            >>> sandhog.AsyncSandhog("redis://me:secret@127.0.0.1:6379").address
            'redis://127.0.0.1:6379'
        """
        return str(self._settings.address)

    @property
    def namespace(self) -> str:
        """The namespace.

        Example:
            >>> sandhog.AsyncSandhog(namespace="evals").namespace
            'evals'
        """
        return self._settings.namespace

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, namespace={self.namespace!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Submitted jobs continue.

        Example:
            >>> async def main():
            ...     client = sandhog.AsyncSandhog()
            ...     result = await client.run("1 + 1")
            ...     await client.close()
            ...     return result.value
            >>> asyncio.run(main())
            2
        """
        await self._queue.close()

    async def run(
        self,
        code: str | None = None,
        *,
        wait: float | None = None,
        on_output: OnOutput | None = None,
        **options: Unpack[JobOptions],
    ) -> Result:
        """Runs a program in a sandbox and returns its result.

        A program that fails is a result too: `raise_for_outcome()` turns it into an exception. When
        the calling task is cancelled, the job is cancelled too.

        Args:
            code: Source text, or None if `argv` names a program of the image.
            wait: Seconds to wait for the result; without end if None.
            on_output: Called with each piece of output while the program runs.
            options: See `JobOptions`.

        Raises:
            InvalidJobError: The job is not valid. It was not sent.
            ResultTimeoutError: No result arrived within `wait`. The job continues.
            RedisError: Redis cannot be reached, or refuses the job.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         result = await client.run("sum(input_data)", input=[1, 2, 3])
            ...         return result.value
            >>> asyncio.run(main())
            6
        """
        return await self._run(self._program(code, options), wait, on_output)

    async def submit(self, code: str | None = None, **options: Unpack[JobOptions]) -> AsyncJob:
        """Submits a program and returns without waiting for it.

        Raises:
            InvalidJobError: The job is not valid. It was not sent.
            RedisError: Redis cannot be reached, or refuses the job.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         jobs = [await client.submit(f"{n} ** 2") for n in range(3)]
            ...         return [(await job.wait()).value for job in jobs]
            >>> asyncio.run(main())
            [0, 1, 4]
        """
        return await self._submit(self._program(code, options))

    def job(self, id: str) -> AsyncJob:
        """Returns a job that was submitted before, by any client. Nothing checks that it exists.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         job = await client.submit("1 + 1")
            ...         return (await client.job(job.id).wait()).value
            >>> asyncio.run(main())
            2
        """
        return AsyncJob(self._queue, id, own_stream=False)

    async def cancel(self, *ids: str) -> None:
        """Requests the end of jobs. A job that has ended keeps its result.

        Raises:
            RedisError: Redis cannot be reached.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         job = await client.submit("while True: pass")
            ...         await client.cancel(job.id)
            ...         return (await job.wait()).outcome.value
            >>> asyncio.run(main())
            'cancelled'
        """
        await self._queue.cancel(ids)

    async def infer(
        self,
        image: str,
        input: Any,
        *,
        method: str | None = None,
        path: str | None = None,
        wait: float | None = None,
        on_output: OnOutput | None = None,
        **options: Unpack[ModelOptions],
    ) -> Result:
        """Asks the model of an image. The result's `value` is the answer.

        Args:
            image: Image with the model.
            input: Plain data that the model gets.
            method: Method of the model; the image's own if left out.
            path: Path of the model's HTTP server; the image's own if left out.
            wait: Seconds to wait for the result; without end if None.
            on_output: Called with each piece of the answer while the model makes it.
            options: See `ModelOptions`.

        Raises:
            InvalidJobError: The job is not valid. It was not sent.
            ResultTimeoutError: No result arrived within `wait`. The job continues.
            RedisError: Redis cannot be reached, or refuses the job.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         return (await client.infer("python", "a text")).error.code
            >>> asyncio.run(main())
            'serves_nothing'
        """
        template = self._question(image, options, method, path, stream=on_output is not None)
        return await self._run(template, wait, on_output, input=input)

    async def submit_infer(
        self,
        image: str,
        input: Any,
        *,
        method: str | None = None,
        path: str | None = None,
        stream: bool = False,
        **options: Unpack[ModelOptions],
    ) -> AsyncJob:
        """Asks a model without waiting for the answer. With `stream` its output has the pieces.

        Raises:
            InvalidJobError: The job is not valid. It was not sent.
            RedisError: Redis cannot be reached, or refuses the job.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         job = await client.submit_infer("python", "a text", stream=True)
            ...         return [piece.text async for piece in job.output()]
            >>> asyncio.run(main())
            []
        """
        template = self._question(image, options, method, path, stream=stream)
        return await self._submit(template, input=input)

    async def imap(
        self,
        code: str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int = CONCURRENCY,
        ordered: bool = True,
        progress: bool = False,
        total: int | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncIterator[Result]:
        """Runs the code once for each input, and yields each result.

        At most `concurrency` jobs are unfinished or not yet yielded, so memory is bounded for any
        number of inputs. Leaving the loop cancels the unfinished jobs. Jobs that the tenant's
        backlog has no room for are submitted again later.

        Args:
            code: Source text; the program sees its input as `input_data`.
            inputs: Plain data, one for each job.
            concurrency: Maximum number of jobs that are unfinished or not yet yielded.
            ordered: Yield results in the order of the inputs; else as they arrive. A result's
                `index` is the position of its input.
            progress: Show a bar, if the package tqdm is installed.
            total: Number of inputs for the bar, if `len(inputs)` is not known.
            options: See `JobOptions`. `keep` is an hour unless it is set.

        Raises:
            InvalidJobError: An input or option is not valid.
            RedisError: Redis cannot be reached, or refuses a job.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         results = client.imap("input_data ** 2", range(4))
            ...         return [result.value async for result in results]
            >>> asyncio.run(main())
            [0, 1, 4, 9]
        """
        run = self._start_map(code, options, concurrency, ordered=ordered)
        bar = Progress(shown=progress, total=total or length_of(inputs))
        feeder = asyncio.create_task(_feed(run, inputs), name="sandhog map")
        try:
            while results := await run.results():
                bar.advance(len(results))
                for result in results:
                    yield result
        finally:
            bar.close()
            await end(feeder)
            if run.has_unfinished:
                await asyncio.shield(run.cancel())

    async def map(
        self,
        code: str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        return_exceptions: bool = False,
        concurrency: int = CONCURRENCY,
        progress: bool = False,
        total: int | None = None,
        **options: Unpack[JobOptions],
    ) -> list[Any]:
        """Runs the code once for each input, and returns the values in the order of the inputs.

        Args:
            code: Source text; the program sees its input as `input_data`.
            inputs: Plain data, one for each job.
            return_exceptions: Return the exception of a job without success in place of its value;
                else the first one is raised and the unfinished jobs are cancelled.
            concurrency: As for `imap`.
            progress: As for `imap`.
            total: As for `imap`.
            options: See `JobOptions`.

        Raises:
            OutcomeError: A job ended without success.
            InvalidJobError: An input or option is not valid.
            RedisError: Redis cannot be reached, or refuses a job.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         return await client.map("input_data.upper()", ["a", "b"])
            >>> asyncio.run(main())
            ['A', 'B']
        """
        values: list[Any] = []
        results = self.imap(
            code, inputs, concurrency=concurrency, progress=progress, total=total, **options
        )
        try:
            async for result in results:
                value = value_or_exception(result, return_exceptions=return_exceptions)
                values.append(value)
        finally:
            await cast("Any", results).aclose()
        return values

    async def _run(
        self,
        template: JobTemplate,
        wait: float | None,
        on_output: OnOutput | None,
        **changes: Any,
    ) -> Result:
        if on_output is None:
            return Result.from_wire(await self._queue.run(template.prepare(**changes), wait))
        job = await self._submit(template, **changes)
        return await run_with_output(job, on_output, wait)

    async def _submit(self, template: JobTemplate, **changes: Any) -> AsyncJob:
        job = template.prepare(**changes)
        await self._queue.submit([job])
        own_stream = not job.has_own_id and not job.has_own_reply
        return AsyncJob(self._queue, job.id, own_stream=own_stream)

    def _program(self, code: str | None, options: JobOptions) -> JobTemplate:
        return program_template(code, merged(self._defaults, options))

    def _question(
        self,
        image: str,
        options: ModelOptions,
        method: str | None,
        path: str | None,
        *,
        stream: bool,
    ) -> JobTemplate:
        own: ModelOptions = {**model_defaults(self._defaults), **options}
        return infer_template(image, own, method=method, path=path, stream=stream)

    def _start_map(
        self, code: str, options: JobOptions, concurrency: int, *, ordered: bool
    ) -> MapRun:
        own = merged(self._defaults, options)
        own.setdefault("keep", _KEEP_OF_MAP_S)
        template = program_template(code, own)
        return MapRun(self._queue, template, window=concurrency, ordered=ordered)


def value_or_exception(result: Result, *, return_exceptions: bool) -> Any:
    """Returns the value of a job of `map`; None if it has none."""
    try:
        result.raise_for_outcome()
        return result.unwrap() if result.value_dropped else result.value
    except SandhogError as error:
        if not return_exceptions or not isinstance(error, OutcomeError | ValueError):
            raise
        return error


async def _feed(run: MapRun, inputs: Iterable[Any] | AsyncIterable[Any]) -> None:
    """Submits the inputs as far as there is room for them."""
    try:
        if isinstance(inputs, AsyncIterable):
            async for one in inputs:
                await run.wait_for_room()
                await run.submit([one])
        else:
            source = iter(inputs)
            while True:
                await run.wait_for_room()
                chunk = take_chunk(source, run.room)
                if not chunk:
                    break
                await run.submit(chunk)
        run.finish()
    except Exception as error:  # noqa: BLE001
        # The caller of `imap` gets every error, also those of its own inputs.
        run.fail(error)
