"""Submitting jobs, waiting for their results and cancelling them: the core of both clients."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from .errors import RedisRefusedError, RedisUnavailableError, ResultTimeoutError, SandhogError
from .inbox import Inbox, Waiter, was_turned_away
from .redis_link import READ_BLOCK_S, RedisLink, is_forbidden
from .wire import Keys, decode_result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .address import Settings
    from .job import PreparedJob

_LOGGER = logging.getLogger("sandhog")
_SUBMIT_BATCH = 256
_POLL_MIN_S = 0.05
_POLL_MAX_S = 1.0
_UNADMITTED_AFTER_S = 5.0
_WAIT_REPLICAS_MS = 5_000


class Queue:
    """One namespace of one Redis, in one event loop."""

    def __init__(self, settings: Settings, outage_timeout: float) -> None:
        self.settings = settings
        self.link = RedisLink(settings.address, outage_timeout)
        self.keys = Keys(settings.namespace)
        self.inbox = Inbox(self.link, self.keys)
        self._may_move = True

    async def submit(self, jobs: Sequence[PreparedJob]) -> list[str]:
        """Submits jobs, up to 256 in one round trip. Returns the ids of their entries.

        Raises:
            RedisError: Redis cannot be reached, or refuses a job. Some may be submitted; all may be
                submitted again.
        """
        entries: list[str] = []
        for start in range(0, len(jobs), _SUBMIT_BATCH):
            batch = jobs[start : start + _SUBMIT_BATCH]
            commands: list[Sequence[Any]] = [
                ("XADD", self.keys.jobs, "*", *job.entry(self.inbox.name)) for job in batch
            ]
            answers = await self._write(commands)
            entries.extend(bytes(answer).decode() for answer in answers)
        return entries

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """Requests the end of jobs.

        Raises:
            RedisError: Redis cannot be reached, or refuses the request.
        """
        if job_ids:
            await self._write(
                [("XADD", self.keys.jobs, "*", "op", "cancel", "id", one) for one in job_ids]
            )

    async def run(self, job: PreparedJob, wait: float | None) -> Mapping[str, Any]:
        """Submits a job and waits for its result. Cancelling the call cancels the job.

        Raises:
            ResultTimeoutError: No result arrived within `wait` seconds. The job continues.
            RedisError: Redis cannot be reached, or refuses the job.
        """
        received, waiter = self._expect(job.id, elsewhere=job.has_own_id or job.has_own_reply)
        try:
            (entry,) = await self.submit([job])
            try:
                if job.has_own_id:
                    await self.inbox.look_up_earlier(job.id)
                if job.has_own_reply:
                    return await self.wait_elsewhere(job.id, wait)
                return await self._receive(job.id, received, wait, entry)
            except RedisUnavailableError as error:
                raise error.while_waiting_for(job.id) from error
        except asyncio.CancelledError:
            await asyncio.shield(self._cancel_quietly(job.id))
            raise
        finally:
            self.inbox.forget(waiter)

    async def wait(self, job_id: str, wait: float | None) -> Mapping[str, Any]:
        """Waits for the result of a job that this client submitted with its own reply stream.

        Raises:
            ResultTimeoutError: No result arrived within `wait` seconds. The job continues.
            RedisError: Redis cannot be reached.
        """
        received, waiter = self._expect(job_id, elsewhere=True)
        try:
            # The entry of the stream may have been read before this call.
            await self.inbox.look_up([job_id])
            return await self._receive(job_id, received, wait, None)
        except RedisUnavailableError as error:
            # All callers that wait get the same fault; each gets an exception of its own.
            raise error.while_waiting_for(job_id) from error
        finally:
            self.inbox.forget(waiter)

    async def wait_elsewhere(self, job_id: str, wait: float | None) -> Mapping[str, Any]:
        """Waits for the result of a job of any client, under its id.

        The wait does not poll if the user of Redis may use BLMOVE on results.

        Raises:
            ResultTimeoutError: No result arrived within `wait` seconds. The job continues.
            RedisError: Redis cannot be reached.
        """
        key, started, pause = self.keys.result(job_id), time.monotonic(), _POLL_MIN_S
        while True:
            found = await self.result(job_id)
            if found is not None:
                return found
            left = None if wait is None else wait - (time.monotonic() - started)
            if left is not None and left <= 0:
                raise ResultTimeoutError(job_id, wait or 0)
            if self._may_move:
                block = READ_BLOCK_S if left is None else max(0.01, min(READ_BLOCK_S, left))
                try:
                    await self.link.wait("BLMOVE", key, key, "LEFT", "LEFT", block)
                except RedisRefusedError as error:
                    if not is_forbidden(error):
                        raise
                    self._may_move = False
            else:
                await asyncio.sleep(pause if left is None else min(pause, left))
                pause = min(pause * 1.5, _POLL_MAX_S)

    async def result(self, job_id: str) -> Mapping[str, Any] | None:
        """Returns the result of a job, or None if it has none.

        Raises:
            RedisError: Redis cannot be reached.
        """
        found = await self.link.execute("LRANGE", self.keys.result(job_id), 0, 0)
        return decode_result(job_id, found[0]) if found else None

    def watch(
        self, job_id: str, deliver: Callable[[Mapping[str, Any] | SandhogError], None]
    ) -> Waiter:
        """Calls `deliver` with the result of a job that is submitted after this call."""
        waiter = Waiter(job_id, deliver)
        self.inbox.register(waiter)
        return waiter

    async def close(self) -> None:
        """Closes all connections."""
        await self.inbox.close()
        await self.link.close()

    def _expect(
        self, job_id: str, *, elsewhere: bool
    ) -> tuple[asyncio.Future[Mapping[str, Any]], Waiter]:
        received: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

        def deliver(found: Mapping[str, Any] | SandhogError) -> None:
            if received.done():
                return
            if isinstance(found, SandhogError):
                received.set_exception(found)
                # The caller may have gone before it reads the exception.
                received.exception()
            else:
                received.set_result(found)

        waiter = Waiter(job_id, deliver, elsewhere)
        self.inbox.register(waiter)
        return received, waiter

    async def _receive(
        self,
        job_id: str,
        received: asyncio.Future[Mapping[str, Any]],
        wait: float | None,
        entry: str | None,
    ) -> Mapping[str, Any]:
        notice = None
        if entry is not None:
            notice = asyncio.get_running_loop().call_later(
                _UNADMITTED_AFTER_S, self._notice_unadmitted, job_id, entry
            )
        try:
            return await asyncio.wait_for(asyncio.shield(received), wait)
        except TimeoutError:
            if received.done():
                return received.result()
            raise ResultTimeoutError(job_id, wait or 0) from None
        finally:
            if notice is not None:
                notice.cancel()

    def _notice_unadmitted(self, job_id: str, entry: str) -> None:
        task = asyncio.ensure_future(self._warn_if_unadmitted(job_id, entry))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _warn_if_unadmitted(self, job_id: str, entry: str) -> None:
        """Logs a warning if no worker has taken the job from the intake."""
        found = await self.link.execute("XRANGE", self.keys.jobs, entry, entry)
        if found:
            _LOGGER.warning(
                "no worker has accepted job %s after %d s: does a worker serve the namespace %s "
                "of %s? `sandhog up` starts one",
                job_id,
                int(_UNADMITTED_AFTER_S),
                self.settings.namespace,
                self.settings.address,
            )

    async def _cancel_quietly(self, job_id: str) -> None:
        try:
            await self.cancel([job_id])
        except SandhogError as error:
            _LOGGER.warning("job %s could not be cancelled: %s", job_id, error)

    async def _write(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Runs commands that write, and waits for the replicas that the settings require."""
        replicas = self.settings.wait_replicas
        if not replicas:
            return await self.link.execute_all(commands)
        *answers, confirmed = await self.link.execute_all(
            [*commands, ("WAIT", replicas, _WAIT_REPLICAS_MS)]
        )
        if confirmed < replicas:
            raise RedisUnavailableError(
                f"{confirmed} of {replicas} replicas of {self.settings.address} have the job",
                str(self.settings.address),
                hint="submit it again with the same id",
            )
        return answers


__all__ = ["Queue", "was_turned_away"]
