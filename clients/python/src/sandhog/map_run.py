"""Many jobs with a bound on those that are unfinished, for `map` and `imap`.

Inputs go in through `submit` and results come out of `results`. At most `window` jobs are submitted
and not yet returned, so memory is bounded for any number of inputs.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import TYPE_CHECKING, Any

from .errors import SandhogError
from .inbox import Waiter, was_turned_away
from .result import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .job import JobTemplate, PreparedJob
    from .queue import Queue

_BACKLOG_PAUSE_S = 0.5
_BACKLOG_PAUSE_MAX_S = 15.0
_CHUNK_MAX = 64
_CHUNK_TIME_S = 0.02


class MapRun:
    """Jobs of one call of `map`: those in flight, and results that wait for their turn."""

    def __init__(self, queue: Queue, template: JobTemplate, *, window: int, ordered: bool) -> None:
        if window < 1:
            raise ValueError(f"concurrency {window} is not allowed; use at least 1")
        if template.has_own_id:
            raise TypeError("the jobs of a map have ids of their own; leave out 'id'")
        self._queue = queue
        self._template = template
        self._window = window
        # Inputs are submitted in batches, so a single free place is not filled at once.
        self._batch = max(1, window // 8)
        self._ordered = ordered
        self._count = 0
        self._next = 0
        self._waiters: dict[int, Waiter] = {}
        self._jobs: dict[int, PreparedJob] = {}
        self._ready: dict[int, Result] = {}
        self._fault: Exception | None = None
        self._is_fed = False
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._resubmissions: set[asyncio.Task[None]] = set()

    @property
    def room(self) -> int:
        """Number of inputs that may be submitted now."""
        return self._window - len(self._waiters) - len(self._ready)

    @property
    def wants_inputs(self) -> bool:
        """True if there is room for a batch of inputs."""
        return self.room >= self._batch

    @property
    def has_unfinished(self) -> bool:
        """True if results are still to be returned."""
        return bool(self._waiters or self._ready)

    async def submit(self, inputs: Sequence[Any]) -> None:
        """Submits a job for each of these inputs.

        Raises:
            InvalidJobError: An input is not plain data.
            RedisError: Redis cannot be reached, or refuses a job.
        """
        jobs = [self._template.prepare(input=one) for one in inputs]
        for job in jobs:
            index = self._count
            self._count += 1
            self._jobs[index] = job
            self._watch(index, job)
        if not self.wants_inputs:
            self._has_room.clear()
        await self._queue.submit(jobs)

    async def wait_for_room(self) -> None:
        """Waits until there is room for a batch of inputs."""
        await self._has_room.wait()

    def finish(self) -> None:
        """States that there are no more inputs."""
        self._is_fed = True
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """Makes `results` raise this error."""
        self._fault = error
        self._changed.set()

    async def step(self, inputs: Sequence[Any], *, last: bool) -> list[Result]:
        """Submits these inputs and returns results; waits for some if there is no more to submit.

        Raises:
            InvalidJobError: An input is not plain data.
            RedisError: Redis cannot be reached, or refuses a job.
        """
        if inputs:
            await self.submit(inputs)
        if last:
            self.finish()
        if last or not self.wants_inputs:
            return await self.results()
        return self._take()

    async def results(self) -> list[Result]:
        """Waits until at least one result can be returned, and returns all that can.

        The list is empty after the last result, once `finish` was called.

        Raises:
            RedisError: Redis cannot be reached.
        """
        while True:
            self._changed.clear()
            if self._fault is not None:
                raise self._fault
            taken = self._take()
            if taken or (self._is_fed and not self.has_unfinished):
                if self.wants_inputs:
                    self._has_room.set()
                return taken
            await self._changed.wait()

    async def cancel(self) -> None:
        """Requests the end of all jobs that are unfinished."""
        for task in self._resubmissions:
            task.cancel()
        unfinished = [waiter.job_id for waiter in self._waiters.values()]
        for waiter in self._waiters.values():
            self._queue.inbox.forget(waiter)
        self._waiters.clear()
        self._jobs.clear()
        self._ready.clear()
        await self._queue.cancel(unfinished)

    def _watch(self, index: int, job: PreparedJob, retries: int = 0) -> None:
        def deliver(found: Mapping[str, Any] | SandhogError) -> None:
            self._receive(index, found, retries)

        self._waiters[index] = self._queue.watch(job.id, deliver)

    def _receive(self, index: int, found: Mapping[str, Any] | SandhogError, retries: int) -> None:
        waiter = self._waiters.pop(index, None)
        if waiter is None:
            return
        if isinstance(found, SandhogError):
            self._fault = found
        elif _is_backlog_full(found):
            # The tenant has as many waiting jobs as it may have: the same job is submitted later.
            self._waiters[index] = waiter
            task = asyncio.create_task(self._resubmit(index, retries))
            self._resubmissions.add(task)
            task.add_done_callback(self._resubmissions.discard)
            return
        else:
            del self._jobs[index]
            self._ready[index] = Result.from_wire(found, index)
        self._changed.set()

    def _take(self) -> list[Result]:
        taken: list[Result] = []
        if not self._ordered:
            taken.extend(self._ready.values())
            self._ready.clear()
        while self._ordered and self._next in self._ready:
            taken.append(self._ready.pop(self._next))
            self._next += 1
        return taken

    async def _resubmit(self, index: int, retries: int) -> None:
        pause = min(_BACKLOG_PAUSE_S * 2**retries, _BACKLOG_PAUSE_MAX_S)
        await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311
        job = self._jobs[index]
        self._watch(index, job, retries + 1)
        try:
            await self._queue.submit([job])
        except SandhogError as error:
            self.fail(error)


def _is_backlog_full(raw: Mapping[str, Any]) -> bool:
    return was_turned_away(raw) and raw["error"]["code"] == "backlog_full"


def take_chunk(source: Iterator[Any], room: int) -> list[Any]:
    """Takes the next inputs: as many as fit into one round trip and are there in a short time."""
    taken: list[Any] = []
    until = time.monotonic() + _CHUNK_TIME_S
    for one in itertools.islice(source, min(room, _CHUNK_MAX)):
        taken.append(one)
        if time.monotonic() >= until:
            break
    return taken
