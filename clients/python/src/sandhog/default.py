"""The client that decorated functions and models use if they are given none."""

from __future__ import annotations

import threading

from .client import Sandhog

_LOCK = threading.Lock()
_CLIENTS: list[Sandhog] = []


def default_client() -> Sandhog:
    """Returns the client of this process for the settings of the environment.

    Example:
        >>> sandhog.default_client() is sandhog.default_client()
        True
    """
    with _LOCK:
        if not _CLIENTS:
            _CLIENTS.append(Sandhog())
        return _CLIENTS[0]
