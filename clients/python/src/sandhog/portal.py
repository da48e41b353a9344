"""An event loop in a thread of its own, in which the client without an event loop runs."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

_T = TypeVar("_T")
_I = TypeVar("_I")
_END = object()
_CANCEL_WAIT_S = 5.0


class Portal:
    """A thread with an event loop. Any number of threads may call it at once."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="sandhog", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """True if the loop runs."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """True if the calling thread is that of the loop."""
        return threading.current_thread() is self._thread

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs a coroutine in the loop and returns its result.

        An interrupt of the calling thread (Ctrl-C) cancels the coroutine and waits for its end.
        """
        return self.call_with_items(lambda _put: coroutine, None)

    def call_with_items(
        self,
        start: Callable[[Callable[[_I], None]], Coroutine[Any, Any, _T]],
        on_item: Callable[[_I], object] | None,
    ) -> _T:
        """Runs a coroutine in the loop, and calls `on_item` in this thread with what it puts."""
        items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        ended = threading.Event()
        coroutine = start(items.put)
        if self.is_current:
            coroutine.close()
            raise RuntimeError("a Sandhog client was called inside its own event loop")

        async def run() -> _T:
            try:
                return await coroutine
            finally:
                ended.set()
                items.put(_END)

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            if on_item is not None:
                while (item := items.get()) is not _END:
                    on_item(item)
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(_CANCEL_WAIT_S)
            raise

    def iterate(self, source: AsyncIterator[_T]) -> Iterator[_T]:
        """Yields the items of an asynchronous iterator, which is closed at the end."""
        try:
            while True:
                item: Any = self.call(_next(source))
                if item is _END:
                    return
                yield item
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                self.call(close())

    def close(self) -> None:
        """Ends the loop and its thread."""
        if self.is_open:
            self._loop.call_soon_threadsafe(self._loop.stop)
            if not self.is_current:
                self._thread.join(_CANCEL_WAIT_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


async def _next(source: AsyncIterator[Any]) -> Any:
    return await anext(source, _END)
