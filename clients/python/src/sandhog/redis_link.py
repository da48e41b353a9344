"""Commands to Redis, with patience for outages and errors that name the address.

Every command of this package may be repeated: a job is submitted under an id that its client chose,
and reading removes nothing. So a command whose connection broke is sent again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Literal, cast

import redis.exceptions as redis_errors
from redis import asyncio as redis_asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from .errors import RedisRefusedError, RedisUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .address import RedisAddress

Word = str | bytes | int | float
"""A word of a command."""

READ_BLOCK_S = 5
"""Longest time for which one read blocks. The next read continues after it."""

_ANSWER_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 5
_PAUSE_MIN_S = 0.05
_PAUSE_MAX_S = 2.0

_TRANSIENT = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,
    redis_errors.ClusterDownError,
    redis_errors.TryAgainError,
    OSError,
)


class RedisLink:
    """Connections to one Redis."""

    def __init__(self, address: RedisAddress, outage_timeout: float) -> None:
        self.address = address
        self.failures = 0
        self._outage_timeout = outage_timeout
        self._connected = False
        self._clients: dict[str, Any] = {}

    async def execute(self, *words: Word) -> Any:
        """Runs one command that does not block.

        Raises:
            RedisUnavailableError: Redis did not answer for the outage timeout.
            RedisRefusedError: Redis answered with an error.
        """
        return await self._patiently(lambda: self._client("commands").execute_command(*words))

    async def wait(self, *words: Word) -> Any:
        """Runs one command that blocks for `READ_BLOCK_S` at most, on a connection of its own.

        Raises:
            RedisUnavailableError: Redis did not answer for the outage timeout.
            RedisRefusedError: Redis answered with an error.
        """
        return await self._patiently(lambda: self._client("waits").execute_command(*words))

    async def execute_all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Runs several commands in one round trip.

        Raises:
            RedisUnavailableError: Redis did not answer for the outage timeout.
            RedisRefusedError: Redis answered one of them with an error.
        """

        async def call() -> list[Any]:
            pipeline = self._client("commands").pipeline(transaction=False)
            for words in commands:
                pipeline.execute_command(*words)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            return answers

        return await self._patiently(call)

    async def close(self) -> None:
        """Closes all connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _patiently(self, call: Callable[[], Awaitable[Any]]) -> Any:
        started: float | None = None
        pause = _PAUSE_MIN_S
        while True:
            try:
                answer = await call()
            except (redis_errors.AuthenticationError, redis_errors.AuthorizationError) as error:
                raise self._refused(error) from error
            except _TRANSIENT as error:
                _raise_if_cancelled(error)
                self.failures += 1
                now = time.monotonic()
                started = now if started is None else started
                # A client that never had a connection probably has a wrong address.
                if not self._connected or now - started >= self._outage_timeout:
                    raise self._unavailable(error, now - started) from error
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_MAX_S)
            except redis_errors.RedisError as error:
                raise self._refused(error) from error
            else:
                self._connected = True
                return answer

    def _unavailable(self, error: Exception, waited: float) -> RedisUnavailableError:
        tried = f" for {waited:.0f} s" if self._connected else ""
        cause = str(error).rstrip(".") or type(error).__name__
        return RedisUnavailableError(
            f"cannot reach Redis at {self.address}{tried}: {cause}",
            str(self.address),
            hint="start it with `sandhog up`, or name another address in SANDHOG_REDIS_URL",
        )

    def _refused(self, error: Exception) -> RedisRefusedError:
        hints = {
            redis_errors.NoPermissionError: "the permissions of an application are in "
            "docs/reference/protocol.md#permissions",
            redis_errors.OutOfMemoryError: "Redis has reached its maxmemory: let jobs end, or "
            "raise it",
            redis_errors.AuthenticationError: "check the user and the password in the URL",
        }
        hint = next((text for kind, text in hints.items() if isinstance(error, kind)), None)
        return RedisRefusedError(
            f"Redis at {self.address} refused the command: {error}", str(self.address), hint=hint
        )

    def _client(self, use: Literal["commands", "waits"]) -> Any:
        """Returns the client for one use. It is created in the loop that uses it."""
        client = self._clients.get(use)
        if client is None:
            timeout = _ANSWER_TIMEOUT_S if use == "commands" else READ_BLOCK_S + 5
            client = self._clients[use] = _connect(self.address, timeout)
        return client


def _raise_if_cancelled(error: Exception) -> None:
    """Raises the cancellation of this task if the library turned it into another error."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


def _connect(address: RedisAddress, timeout: float) -> Any:
    options: dict[str, Any] = {
        "username": address.user,
        "password": address.password,
        "protocol": 2,
        "socket_timeout": timeout,
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
    }
    if address.kind == "unix":
        del options["socket_keepalive"]
        return redis_asyncio.Redis(unix_socket_path=address.path, db=address.database, **options)
    if address.encrypted:
        tls = {
            "ssl": True,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": address.tls.ca,
            "ssl_certfile": address.tls.cert,
            "ssl_keyfile": address.tls.key,
        }
        options |= tls
    else:
        tls = {}
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return cast("Any", RedisCluster)(startup_nodes=nodes, **options)
    if address.kind == "sentinel":
        sentinel_options = {
            "username": address.sentinel_user,
            "password": address.sentinel_password,
            "protocol": 2,
            "socket_timeout": _CONNECT_TIMEOUT_S,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            **tls,
        }
        sentinel = cast("Any", Sentinel)(
            list(address.hosts), sentinel_kwargs=sentinel_options, **options
        )
        return sentinel.master_for(address.service, db=address.database)
    ((host, port), *_) = address.hosts
    return redis_asyncio.Redis(host=host, port=port, db=address.database, **options)


def is_forbidden(error: RedisRefusedError) -> bool:
    """Returns whether the user of Redis lacks a permission."""
    return isinstance(error.__cause__, redis_errors.NoPermissionError)


def stream_entries(answer: Any) -> list[tuple[str, dict[bytes, bytes]]]:
    """Returns the entries of the answer of XREAD with one stream, each an id and its fields."""
    if not answer:
        return []
    ((_, entries),) = cast("list[tuple[bytes, list[Any]]]", answer)
    return [_entry(entry) for entry in entries]


def _entry(entry: Any) -> tuple[str, dict[bytes, bytes]]:
    entry_id, fields = entry
    if isinstance(fields, list | tuple):
        flat = list(cast("Sequence[bytes]", fields))
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return bytes(entry_id).decode(), cast("dict[bytes, bytes]", fields)


def stream_position(entry_id: str) -> tuple[int, int]:
    """Returns a stream id as numbers, which compare as Redis compares ids."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)
