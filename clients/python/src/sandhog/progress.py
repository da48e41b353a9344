"""The progress bar of `map` and `imap`, where the package tqdm is installed."""

from __future__ import annotations

import importlib
from typing import Any


class Progress:
    """A bar that counts finished jobs. It does nothing if it is off or tqdm is missing."""

    def __init__(self, *, shown: bool, total: int | None) -> None:
        self._bar: Any = None
        if shown:
            try:
                tqdm: Any = importlib.import_module("tqdm.auto")
            except ImportError:
                return
            self._bar = tqdm.tqdm(total=total, unit="job", dynamic_ncols=True)

    def advance(self, count: int) -> None:
        """Counts finished jobs."""
        if self._bar is not None and count:
            self._bar.update(count)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def length_of(inputs: Any) -> int | None:
    """Returns the number of inputs, or None if it is not known."""
    try:
        return len(inputs)
    except TypeError:
        return None
