"""The client for programs without an event loop."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Self, Unpack

from .address import load_settings
from .async_client import CONCURRENCY, AsyncSandhog, value_or_exception
from .async_job import AsyncJob, run_with_output
from .map_run import take_chunk
from .options import JobOptions, ModelOptions, check_names
from .portal import Portal
from .progress import Progress, length_of
from .schedules import Schedules
from .sync_job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from .async_schedules import AsyncSchedules
    from .output import Output
    from .result import Result


class Sandhog:
    r"""A client of one namespace.

    One object serves any number of threads. It reads the results of all its jobs on one connection,
    without polling, and works in forked processes and in notebooks.

    Args:
        url: Address of Redis. If left out: `SANDHOG_REDIS_URL`, else the settings files of
            `sandhog`, else a running `sandhog up` of this user, else `redis://127.0.0.1:6379`.
        namespace: The queue; `SANDHOG_NAMESPACE` or `default` if left out.
        outage_timeout: Seconds for which calls wait for a Redis that went away.
        defaults: Options for every job of the client.

    Example:
        >>> with sandhog.Sandhog(tenant="acme", timeout=10) as client:
        ...     client.run("print(6 * 7)").stdout
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
        self._settings = load_settings(url, namespace)
        self._outage_timeout = outage_timeout
        self._defaults = defaults
        self._lock = threading.Lock()
        self._core: tuple[int, Portal, AsyncSandhog] | None = None
        self.schedules = Schedules(self._enter_schedules)
        """The schedules of the namespace."""

    @property
    def address(self) -> str:
        """The address of Redis, without user and password.

        Example:
            >>> sandhog.Sandhog("redis://me:secret@127.0.0.1:6379").address
            'redis://127.0.0.1:6379'
        """
        return str(self._settings.address)

    @property
    def namespace(self) -> str:
        """The namespace.

        Example:
            >>> sandhog.Sandhog(namespace="evals").namespace
            'evals'
        """
        return self._settings.namespace

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, namespace={self.namespace!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. Submitted jobs continue. A later call opens new ones.

        Example:
            >>> other = sandhog.Sandhog()
            >>> other.run("1 + 1").value
            2
            >>> other.close()
        """
        with self._lock:
            core, self._core = self._core, None
        if core is not None and core[0] == os.getpid():
            _close(core[1], core[2])

    def run(
        self,
        code: str | None = None,
        *,
        wait: float | None = None,
        on_output: Callable[[Output], object] | None = None,
        **options: Unpack[JobOptions],
    ) -> Result:
        """Runs a program in a sandbox and returns its result.

        A program that fails is a result too: `raise_for_outcome()` turns it into an exception.
        Ctrl-C cancels the job.

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
            >>> client.run("sum(input_data)", input=[1, 2, 3]).value
            6
            >>> result = client.run(
            ...     "open('out.txt', 'w').write(open('in.txt').read().upper())",
            ...     files={"in.txt": "hello"},
            ...     fetch=["out.txt"],
            ... )
            >>> result.files["out.txt"]
            b'HELLO'
        """
        portal, core = self._enter()
        if on_output is None:
            return portal.call(core.run(code, wait=wait, **options))
        job = portal.call(core.submit(code, **options))
        return _follow(portal, job, on_output, wait)

    def submit(self, code: str | None = None, **options: Unpack[JobOptions]) -> Job:
        """Submits a program and returns without waiting for it.

        Raises:
            InvalidJobError: The job is not valid. It was not sent.
            RedisError: Redis cannot be reached, or refuses the job.

        Example:
            >>> jobs = [client.submit(f"{n} ** 2") for n in range(3)]
            >>> [job.wait().value for job in jobs]
            [0, 1, 4]
        """
        portal, core = self._enter()
        return Job(portal, portal.call(core.submit(code, **options)))

    def job(self, id: str) -> Job:
        """Returns a job that was submitted before, by any client. Nothing checks that it exists.

        Example:
            >>> id = client.submit("1 + 1").id
            >>> client.job(id).wait().value
            2
        """
        portal, core = self._enter()
        return Job(portal, core.job(id))

    def cancel(self, *ids: str) -> None:
        """Requests the end of jobs. A job that has ended keeps its result.

        Raises:
            RedisError: Redis cannot be reached.

        Example:
            >>> job = client.submit("while True: pass")
            >>> client.cancel(job.id)
            >>> job.wait().outcome.value
            'cancelled'
        """
        portal, core = self._enter()
        portal.call(core.cancel(*ids))

    def infer(
        self,
        image: str,
        input: Any,
        *,
        method: str | None = None,
        path: str | None = None,
        wait: float | None = None,
        on_output: Callable[[Output], object] | None = None,
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
            >>> client.infer("python", "a text").raise_for_outcome()
            Traceback (most recent call last):
                ...
            sandhog.RejectedError: the job was rejected: ...
        """
        portal, core = self._enter()
        if on_output is None:
            return portal.call(
                core.infer(image, input, method=method, path=path, wait=wait, **options)
            )
        job = portal.call(
            core.submit_infer(image, input, method=method, path=path, stream=True, **options)
        )
        return _follow(portal, job, on_output, wait)

    def submit_infer(
        self,
        image: str,
        input: Any,
        *,
        method: str | None = None,
        path: str | None = None,
        stream: bool = False,
        **options: Unpack[ModelOptions],
    ) -> Job:
        """Asks a model without waiting for the answer. With `stream` its output has the pieces.

        Raises:
            InvalidJobError: The job is not valid. It was not sent.
            RedisError: Redis cannot be reached, or refuses the job.

        Example:
            >>> with client.submit_infer("python", "a text", stream=True) as job:
            ...     [piece.text for piece in job.output()]
            []
        """
        portal, core = self._enter()
        job = core.submit_infer(image, input, method=method, path=path, stream=stream, **options)
        return Job(portal, portal.call(job))

    def imap(
        self,
        code: str,
        inputs: Iterable[Any],
        *,
        concurrency: int = CONCURRENCY,
        ordered: bool = True,
        progress: bool = False,
        total: int | None = None,
        **options: Unpack[JobOptions],
    ) -> Iterator[Result]:
        """Runs the code once for each input, and yields each result.

        At most `concurrency` jobs are unfinished or not yet yielded, so memory is bounded for any
        number of inputs. Closing the iterator cancels the unfinished jobs. Jobs that the tenant's
        backlog has no room for are submitted again later. `inputs` is read by the calling thread.

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
            >>> [result.value for result in client.imap("input_data ** 2", range(4))]
            [0, 1, 4, 9]
            >>> results = client.imap("len(input_data)", ["a", "bb"], ordered=False)
            >>> sorted((result.index, result.value) for result in results)
            [(0, 1), (1, 2)]
        """
        portal, core = self._enter()
        start = core._start_map  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        run = start(code, options, concurrency, ordered=ordered)
        bar = Progress(shown=progress, total=total or length_of(inputs))
        source = iter(inputs)
        more = True
        try:
            while True:
                chunk: list[Any] = []
                if more and run.wants_inputs:
                    chunk = take_chunk(source, run.room)
                    more = bool(chunk)
                results = portal.call(run.step(chunk, last=not more))
                bar.advance(len(results))
                yield from results
                if not more and not results:
                    return
        finally:
            bar.close()
            if run.has_unfinished:
                portal.call(run.cancel())

    def map(
        self,
        code: str,
        inputs: Iterable[Any],
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
            >>> client.map("input_data.upper()", ["a", "b"])
            ['A', 'B']
            >>> client.map("1 / input_data", [1, 0], return_exceptions=True)[1].code is None
            True
        """
        values: list[Any] = []
        results = self.imap(
            code, inputs, concurrency=concurrency, progress=progress, total=total, **options
        )
        for result in results:
            value = value_or_exception(result, return_exceptions=return_exceptions)
            values.append(value)
        return values

    def _enter(self) -> tuple[Portal, AsyncSandhog]:
        """Returns the loop and the client in it. A forked process gets its own."""
        with self._lock:
            if self._core is None or self._core[0] != os.getpid():
                portal = Portal()
                core = AsyncSandhog(
                    self._settings.url,
                    namespace=self._settings.namespace,
                    outage_timeout=self._outage_timeout,
                    **self._defaults,
                )
                self._core = os.getpid(), portal, core
                weakref.finalize(self, _close_in, os.getpid(), portal, core)
            return self._core[1:]

    def _enter_schedules(self) -> tuple[Portal, AsyncSchedules]:
        portal, core = self._enter()
        return portal, core.schedules


def _follow(
    portal: Portal, job: AsyncJob, on_output: Callable[[Output], object], wait: float | None
) -> Result:
    """Calls `on_output` in the calling thread, and returns the result.

    An exception of `on_output` and Ctrl-C cancel the job.
    """
    return portal.call_with_items(lambda put: run_with_output(job, put, wait), on_output)


def _close(portal: Portal, core: AsyncSandhog) -> None:
    if not portal.is_current:
        portal.call(core.close())
    portal.close()


def _close_in(process: int, portal: Portal, core: AsyncSandhog) -> None:
    if process == os.getpid() and portal.is_open:
        _close(portal, core)
