"""Schedules, for programs with an event loop: jobs that a cron expression submits."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast

from .errors import InvalidJobError
from .job import merged, program_template
from .program import run_program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .address import Settings
    from .options import JobOptions

_OPTION_OF_FIELD = {
    "tags": "--class",
    "tenant": "--tenant",
    "priority": "--priority",
    "unique": "--unique",
    "reply": "--reply",
    "retry_on": "--retry-on",
    "max_attempts": "--max-attempts",
}
_MILLISECOND_OPTIONS = {
    "delay_ms": "--delay",
    "ttl_ms": "--ttl",
    "backoff_ms": "--backoff",
    "unique_ttl_ms": "--unique-for",
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule and its state.

    Attributes:
        name: Its name.
        state: `active`, `paused`, or `over` if its expression has no further time.
        cron: The cron expression.
        zone: The time zone of the expression.
        missed: Treatment of missed firings.
        overlap: Treatment of a firing while the last job has not ended.
        next_at: Time of the next firing, or None.
        last_at: Time of the last firing, or None.
        last_id: Id of the last job, or None.
        fired: Number of jobs that it has submitted.
        left_out: Number of missed firings that were not made up for.

    Example:
        >>> schedule = client.schedules.add("doc", "30 3 * * *", "print(1)", replace=True)
        >>> schedule.name, schedule.state, schedule.zone
        ('doc', 'active', 'UTC')
        >>> client.schedules.remove("doc")
    """

    name: str
    state: str
    cron: str
    zone: str
    missed: str
    overlap: str
    next_at: datetime | None
    last_at: datetime | None
    last_id: str | None
    fired: int
    left_out: int


class AsyncSchedules:
    """The schedules of a namespace. Every call needs the program `sandhog`.

    The program writes schedules because this takes a worker's permissions in Redis, and because a
    cron expression must mean the same to the one who writes it and to the workers.

    Example:
        >>> async def main():
        ...     async with sandhog.AsyncSandhog() as client:
        ...         await client.schedules.add("doc", "@hourly", "print(1)", replace=True)
        ...         names = [schedule.name for schedule in await client.schedules.list()]
        ...         await client.schedules.remove("doc")
        ...         return "doc" in names
        >>> asyncio.run(main())
        True
    """

    def __init__(self, settings: Settings, defaults: JobOptions) -> None:
        self._settings = settings
        self._defaults = defaults

    async def add(
        self,
        name: str,
        cron: str,
        code: str | None = None,
        *,
        zone: str = "UTC",
        missed: Literal["skip", "all"] = "skip",
        overlap: Literal["allow", "skip"] = "allow",
        replace: bool = False,
        **options: Unpack[JobOptions],
    ) -> Schedule:
        """Adds a schedule, which submits the job at every time of the expression.

        Args:
            name: Name of the schedule.
            cron: Minute, hour, day of month, month, day of week; or `@daily` and the like.
            code: Source text, or None if `argv` names a program.
            zone: Time zone of the expression, such as `Europe/Berlin`.
            missed: Submit one job for all firings missed without a worker, or each of them.
            overlap: Run a firing while the last job has not ended, or skip it.
            replace: Replace a schedule of that name.
            options: See `JobOptions`, without `id` and `at`.

        Raises:
            InvalidJobError: The job is not valid.
            ProgramError: The expression is not valid, the name is taken, or `sandhog` is missing.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         await client.schedules.add("doc", "0 25 * * *", "print(1)")
            >>> asyncio.run(main())
            Traceback (most recent call last):
                ...
            sandhog.ProgramError: ...
        """
        template = program_template(code, merged(self._defaults, options))
        words = ["--zone", zone, "--missed", missed, "--overlap", overlap]
        words += ["--replace"] if replace else []
        words += _routing_words(template.fields)
        payload = json.dumps(_as_json(template.payload))
        arguments = ["schedule", "add", *words, "--file", "-", name, cron]
        await run_program(self._settings, arguments, payload.encode() + b"\n")
        return await self.get(name)

    async def list(self) -> list[Schedule]:
        """Returns all schedules, the one due next first.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         return await client.schedules.list()
            >>> asyncio.run(main())
            []
        """
        return [_schedule(found) for found in await self._run("list")]

    async def get(self, name: str) -> Schedule:
        """Returns one schedule.

        Raises:
            ProgramError: There is no schedule of that name.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         await client.schedules.get("none")
            >>> asyncio.run(main())
            Traceback (most recent call last):
                ...
            sandhog.ProgramError: there is no schedule none
            hint: `sandhog schedule list` lists the schedules
        """
        (found,) = await self._run("show", name)
        return _schedule(found)

    async def pause(self, name: str) -> None:
        """Stops a schedule from firing until it is resumed.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         await client.schedules.add("doc", "@hourly", "print(1)", replace=True)
            ...         await client.schedules.pause("doc")
            ...         state = (await client.schedules.get("doc")).state
            ...         await client.schedules.remove("doc")
            ...         return state
            >>> asyncio.run(main())
            'paused'
        """
        await self._run("pause", name)

    async def resume(self, name: str) -> None:
        """Lets a schedule fire again. Firings that were due in the meantime are skipped.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         await client.schedules.add("doc", "@hourly", "print(1)", replace=True)
            ...         await client.schedules.pause("doc")
            ...         await client.schedules.resume("doc")
            ...         state = (await client.schedules.get("doc")).state
            ...         await client.schedules.remove("doc")
            ...         return state
            >>> asyncio.run(main())
            'active'
        """
        await self._run("resume", name)

    async def remove(self, name: str) -> None:
        """Removes a schedule. The jobs that it has submitted stay.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         await client.schedules.add("doc", "@hourly", "print(1)", replace=True)
            ...         await client.schedules.remove("doc")
            ...         return await client.schedules.list()
            >>> asyncio.run(main())
            []
        """
        await self._run("remove", name)

    async def run_now(self, name: str) -> str:
        """Submits the job of a schedule now, and returns the id of the job.

        Example:
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         await client.schedules.add("doc", "@yearly", "6 * 7", replace=True)
            ...         id = await client.schedules.run_now("doc")
            ...         value = (await client.job(id).wait()).value
            ...         await client.schedules.remove("doc")
            ...         return value
            >>> asyncio.run(main())
            42
        """
        (found,) = await self._run("run-now", name)
        return str(found["id"])

    async def _run(self, command: str, *names: str) -> list[dict[str, Any]]:
        return await run_program(self._settings, ["schedule", command, *names])


def _schedule(found: Mapping[str, Any]) -> Schedule:
    return Schedule(
        name=found["name"],
        state=found["state"],
        cron=found["cron"],
        zone=found["zone"],
        missed=found["missed"],
        overlap=found["overlap"],
        next_at=_moment(found["next_ms"]),
        last_at=_moment(found["last_ms"]),
        last_id=found["last_id"],
        fired=found["fired"],
        left_out=found["left_out"],
    )


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def _routing_words(fields: Mapping[str, str]) -> list[str]:
    words: list[str] = []
    for name, value in fields.items():
        if name in _OPTION_OF_FIELD:
            words += [_OPTION_OF_FIELD[name], value]
        elif name in _MILLISECOND_OPTIONS:
            words += [_MILLISECOND_OPTIONS[name], f"{value}ms"]
        elif name == "keep_s":
            words += ["--keep", f"{value}s"]
        else:
            raise InvalidJobError(
                f"the job of a schedule has no option {name.removesuffix('_ms')!r}",
                hint="each firing has its own id and start",
            )
    return words


def _as_json(found: Any) -> Any:
    """Returns a payload whose bytes are base64, as its JSON form has them."""
    if isinstance(found, bytes):
        return {"base64": base64.b64encode(found).decode()}
    if isinstance(found, dict):
        return {name: _as_json(item) for name, item in cast("dict[str, Any]", found).items()}
    if isinstance(found, list | tuple):
        return [_as_json(item) for item in cast("list[Any]", found)]
    return found
