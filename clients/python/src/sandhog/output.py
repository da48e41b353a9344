"""The output of a job while it runs."""

from __future__ import annotations

import asyncio
import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from .redis_link import READ_BLOCK_S, stream_entries
from .tasks import end
from .wire import text_or_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

    from .queue import Queue

_READ_BATCH = 256


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of a program's output.

    Attributes:
        stream: `stdout` or `stderr`.
        text: The text. A character whose bytes arrive in two pieces is in the later one.
        attempt: Number of the attempt that printed it, from 1. A retried job starts anew.

    Example:
        >>> [output.stream for output in client.submit("print('hello')").output()]
        ['stdout']
    """

    stream: Literal["stdout", "stderr"]
    text: str
    attempt: int = 1


class OutputFollower:
    """Reads the log of one job from its beginning to its end."""

    def __init__(self, queue: Queue, job_id: str) -> None:
        self._queue = queue
        self._key = queue.keys.log(job_id)
        self._after = "0"
        self._attempt = 1
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}
        self._sent: dict[str, int] = {}
        self._ended = False

    async def follow(self, result: Awaitable[Mapping[str, Any]]) -> AsyncIterator[Output]:
        """Yields the output until the job has ended. `result` completes with the job's result.

        A job that prints nothing has no log, and a large log is removed soon after the end. Then
        the rest of the output is that of the result.

        Raises:
            RedisError: Redis cannot be reached.
        """
        waiting = asyncio.ensure_future(result)
        reading: asyncio.Task[list[tuple[str, dict[bytes, bytes]]]] | None = None
        try:
            while not self._ended:
                if waiting.done():
                    entries = await self._read(block=False)
                    if not entries:
                        break
                else:
                    if reading is None:
                        reading = asyncio.create_task(self._read(block=True))
                    await asyncio.wait({reading, waiting}, return_when=asyncio.FIRST_COMPLETED)
                    if not reading.done():
                        await end(reading)
                        reading = None
                        continue
                    entries, reading = reading.result(), None
                for output in self._take(entries):
                    yield output
            raw = await waiting
            for output in self._rest(raw):
                yield output
        finally:
            await end(reading)
            await end(waiting)

    async def _read(self, *, block: bool) -> list[tuple[str, dict[bytes, bytes]]]:
        words = ("XREAD", "COUNT", _READ_BATCH)
        streams = ("STREAMS", self._key, self._after)
        link = self._queue.link
        if block:
            answer = await link.wait(*words, "BLOCK", READ_BLOCK_S * 1000, *streams)
        else:
            answer = await link.execute(*words, *streams)
        return stream_entries(answer)

    def _take(self, entries: list[tuple[str, dict[bytes, bytes]]]) -> list[Output]:
        outputs: list[Output] = []
        for entry_id, fields in entries:
            self._after = entry_id
            stream = fields.get(b"stream", b"").decode(errors="replace")
            if stream == "end":
                self._ended = True
                break
            attempt = int(fields.get(b"attempt", b"1"))
            if attempt != self._attempt:
                self._attempt, self._decoders, self._sent = attempt, {}, {}
            outputs.extend(self._decode(stream, fields.get(b"data", b"")))
        return outputs

    def _rest(self, raw: Mapping[str, Any]) -> list[Output]:
        """Returns the output of the result that the log did not have."""
        outputs: list[Output] = []
        if raw.get("attempts", 1) > self._attempt and not self._ended:
            self._attempt, self._decoders, self._sent = raw["attempts"], {}, {}
        for stream in ("stdout", "stderr"):
            data = text_or_bytes(raw.get(stream)) or b""
            outputs.extend(self._decode(stream, data[self._sent.get(stream, 0) :], final=True))
        return outputs

    def _decode(self, stream: str, data: bytes, *, final: bool = False) -> list[Output]:
        if stream not in {"stdout", "stderr"}:
            return []
        self._sent[stream] = self._sent.get(stream, 0) + len(data)
        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
        text = self._decoders[stream].decode(data, final)
        return [Output(cast("Any", stream), text, self._attempt)] if text else []
