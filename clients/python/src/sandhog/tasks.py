"""Ending tasks of an event loop."""

from __future__ import annotations

import asyncio
from typing import Any

_PAUSE_S = 0.05


async def end(task: asyncio.Task[Any] | asyncio.Future[Any] | None) -> None:
    """Cancels a task and waits for its end. Its result and its exception are dropped.

    A library may swallow a cancellation, so it is repeated.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_PAUSE_S)
    if task is not None and not task.cancelled():
        task.exception()
