"""Results of any number of jobs on one connection.

The client names one reply stream in all of its jobs, and one task reads it. A result may not arrive
through the stream: the stream is bounded, and a job whose id the caller chose may have been
submitted before. Such a result is looked up under the job's id.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from .errors import RedisRefusedError, SandhogError
from .redis_link import READ_BLOCK_S, RedisLink, is_forbidden, stream_entries, stream_position
from .tasks import end
from .wire import Keys, decode_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Delivery = Mapping[str, Any] | SandhogError

_READ_BATCH = 64
_LARGE_RESULT = 4_096
_TRIM_BATCH = 1_024
_START = "0-0"
_LOOKUP_MIN_S = 5.0
_LOOKUP_MAX_S = 60.0
_LOOKUP_BATCH = 64


@dataclass(slots=True, eq=False)
class Waiter:
    """One caller that waits for the result of one job."""

    job_id: str
    deliver: Callable[[Delivery], None]
    elsewhere: bool = False
    """True if the result may go to another reply stream."""
    since: float = field(default_factory=time.monotonic)


class Inbox:
    """The waiters of a client, and the task that delivers results to them."""

    def __init__(self, link: RedisLink, keys: Keys) -> None:
        self.name = f"client:{uuid.uuid4().hex}"
        self._link = link
        self._keys = keys
        self._waiters: dict[str, list[Waiter]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._has_waiters = asyncio.Event()
        self._after = _START
        self._untrimmed = 0
        self._may_trim = True
        self._is_closed = False

    def register(self, waiter: Waiter) -> None:
        """Adds a waiter. Starts the reader of the stream."""
        self._waiters.setdefault(waiter.job_id, []).append(waiter)
        self._has_waiters.set()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(), name="sandhog replies")

    def forget(self, waiter: Waiter) -> None:
        """Removes a waiter."""
        waiters = self._waiters.get(waiter.job_id, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(waiter.job_id, None)

    async def look_up(self, job_ids: Iterable[str]) -> None:
        """Delivers the results that these jobs have under their ids.

        Raises:
            RedisError: Redis cannot be reached, or refuses the command.
        """
        wanted = list(job_ids)
        for start in range(0, len(wanted), _LOOKUP_BATCH):
            batch = wanted[start : start + _LOOKUP_BATCH]
            known = await self._link.execute_all(
                [("EXISTS", self._keys.result(job_id)) for job_id in batch]
            )
            for job_id, exists in zip(batch, known, strict=True):
                if exists:
                    await self._look_up_one(job_id)

    async def look_up_earlier(self, job_id: str) -> None:
        """Delivers the result that a job had when it was submitted just now.

        The old result of a job that was turned away is skipped: the job is decided anew.

        Raises:
            RedisError: Redis cannot be reached, or refuses the command.
        """
        found = await self._link.execute("LRANGE", self._keys.result(job_id), 0, 0)
        if found and not was_turned_away(decode_result(job_id, found[0])):
            self._deliver(job_id, found[0])

    async def close(self) -> None:
        """Stops the reader."""
        self._is_closed = True
        await end(self._reader)

    def _deliver(self, job_id: str, encoded: bytes) -> None:
        waiters = self._waiters.pop(job_id, None)
        if not waiters:
            return
        decoded: Delivery
        try:
            decoded = decode_result(job_id, encoded)
        except SandhogError as error:
            decoded = error
        for waiter in waiters:
            waiter.deliver(decoded)

    async def _look_up_one(self, job_id: str) -> None:
        found = await self._link.execute("LRANGE", self._keys.result(job_id), 0, 0)
        if found:
            self._deliver(job_id, found[0])

    async def _read(self) -> None:
        """Reads the stream while there are waiters. A fault of Redis goes to all of them."""
        interval, looked_up = _LOOKUP_MIN_S, time.monotonic()
        while not self._is_closed:
            if not self._waiters:
                self._has_waiters.clear()
                await self._has_waiters.wait()
                interval, looked_up = _LOOKUP_MIN_S, time.monotonic()
            try:
                failures = self._link.failures
                found, gap = await self._next_entries()
                if self._link.failures != failures:
                    gap = True
                    await self._rewind_if_lost()
                now = time.monotonic()
                if found:
                    interval = _LOOKUP_MIN_S
                if gap or now - looked_up >= interval:
                    quiet = not found
                    await self.look_up(self._due(everything=gap or quiet))
                    looked_up = time.monotonic()
                    interval = min(interval * 2, _LOOKUP_MAX_S)
            except SandhogError as error:
                waiters, self._waiters = self._waiters, {}
                for waiter in [one for same in waiters.values() for one in same]:
                    waiter.deliver(error)

    def _due(self, *, everything: bool) -> list[str]:
        """Returns the jobs to look up: all, or those whose result may go to another stream."""
        return [
            job_id
            for job_id, waiters in self._waiters.items()
            if everything or any(waiter.elsewhere for waiter in waiters)
        ]

    async def _next_entries(self) -> tuple[bool, bool]:
        """Delivers the next entries. Returns whether there were any, and whether some are lost."""
        entries = await self._entries(_READ_BATCH, self._after, block=True)
        gap = False
        is_large = any(len(fields.get(b"result", b"")) >= _LARGE_RESULT for _, fields in entries)
        if len(entries) == _READ_BATCH or is_large:
            # Entries after the last read may have left the stream.
            first = await self._entries(1, _START)
            gap = not first or stream_position(first[0][0]) > stream_position(self._after)
        for entry_id, fields in entries:
            self._after = entry_id
            if b"id" in fields and b"result" in fields:
                self._deliver(fields[b"id"].decode(errors="replace"), fields[b"result"])
        self._untrimmed += len(entries)
        if self._untrimmed >= _TRIM_BATCH or (self._untrimmed and not entries):
            await self._trim()
        return bool(entries), gap

    async def _entries(
        self, count: int, after: str, *, block: bool = False
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        key = self._keys.reply(self.name)
        if block:
            wait = ("BLOCK", READ_BLOCK_S * 1000)
            answer = await self._link.wait("XREAD", "COUNT", count, *wait, "STREAMS", key, after)
        else:
            answer = await self._link.execute("XREAD", "COUNT", count, "STREAMS", key, after)
        return stream_entries(answer)

    async def _trim(self) -> None:
        """Removes the entries that were read, except the last, if the user of Redis may do so."""
        self._untrimmed = 0
        if not self._may_trim:
            return
        try:
            await self._link.execute("XTRIM", self._keys.reply(self.name), "MINID", self._after)
        except RedisRefusedError as error:
            if not is_forbidden(error):
                raise
            self._may_trim = False

    async def _rewind_if_lost(self) -> None:
        """Begins anew if Redis lost its last writes and may assign the ids of entries again."""
        try:
            last = await self._link.execute(
                "XREVRANGE", self._keys.reply(self.name), "+", "-", "COUNT", 1
            )
        except RedisRefusedError as error:
            if not is_forbidden(error):
                raise
            return
        top = bytes(last[0][0]).decode() if last else _START
        if stream_position(top) < stream_position(self._after):
            self._after = _START


def was_turned_away(raw: Mapping[str, Any]) -> bool:
    """Returns whether a result is that of a job that may be submitted again with the same id."""
    error = cast("Mapping[str, Any]", raw.get("error") or {})
    codes = ("duplicate", "backlog_full")
    return raw.get("outcome") == "rejected" and error.get("code") in codes
