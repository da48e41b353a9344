"""Schedules, for programs without an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from .async_schedules import AsyncSchedules, Schedule
    from .options import JobOptions
    from .portal import Portal


class Schedules:
    """The schedules of a namespace. Every call needs the program `sandhog`.

    The program writes schedules because this takes a worker's permissions in Redis, and because a
    cron expression must mean the same to the one who writes it and to the workers.

    Example:
        >>> schedule = client.schedules.add("doc", "30 3 * * MON-FRI", "print(1)", replace=True)
        >>> schedule.next_at.minute
        30
        >>> client.schedules.remove("doc")
    """

    def __init__(self, enter: Callable[[], tuple[Portal, AsyncSchedules]]) -> None:
        self._enter = enter

    def add(
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
            >>> client.schedules.add("doc", "@hourly", "print(1)", tenant="acme").state
            'active'
            >>> client.schedules.remove("doc")
        """
        portal, schedules = self._enter()
        return portal.call(
            schedules.add(
                name,
                cron,
                code,
                zone=zone,
                missed=missed,
                overlap=overlap,
                replace=replace,
                **options,
            )
        )

    def list(self) -> list[Schedule]:
        """Returns all schedules, the one due next first.

        Example:
            >>> client.schedules.list()
            []
        """
        portal, schedules = self._enter()
        return portal.call(schedules.list())

    def get(self, name: str) -> Schedule:
        """Returns one schedule.

        Raises:
            ProgramError: There is no schedule of that name.

        Example:
            >>> client.schedules.get("none")
            Traceback (most recent call last):
                ...
            sandhog.ProgramError: there is no schedule none
            hint: `sandhog schedule list` lists the schedules
        """
        portal, schedules = self._enter()
        return portal.call(schedules.get(name))

    def pause(self, name: str) -> None:
        """Stops a schedule from firing until it is resumed.

        Example:
            >>> schedule = client.schedules.add("doc", "@hourly", "print(1)")
            >>> client.schedules.pause("doc")
            >>> client.schedules.get("doc").state
            'paused'
            >>> client.schedules.remove("doc")
        """
        portal, schedules = self._enter()
        portal.call(schedules.pause(name))

    def resume(self, name: str) -> None:
        """Lets a schedule fire again. Firings that were due in the meantime are skipped.

        Example:
            >>> schedule = client.schedules.add("doc", "@hourly", "print(1)")
            >>> client.schedules.pause("doc")
            >>> client.schedules.resume("doc")
            >>> client.schedules.get("doc").state
            'active'
            >>> client.schedules.remove("doc")
        """
        portal, schedules = self._enter()
        portal.call(schedules.resume(name))

    def remove(self, name: str) -> None:
        """Removes a schedule. The jobs that it has submitted stay.

        Example:
            >>> schedule = client.schedules.add("doc", "@hourly", "print(1)")
            >>> client.schedules.remove("doc")
            >>> client.schedules.list()
            []
        """
        portal, schedules = self._enter()
        portal.call(schedules.remove(name))

    def run_now(self, name: str) -> str:
        """Submits the job of a schedule now, and returns the id of the job.

        Example:
            >>> schedule = client.schedules.add("doc", "@yearly", "6 * 7")
            >>> client.job(client.schedules.run_now("doc")).wait().value
            42
            >>> client.schedules.remove("doc")
        """
        portal, schedules = self._enter()
        return portal.call(schedules.run_now(name))
