"""Check that a job's input is plain data: the types that JSON and MessagePack share.

A worker rejects other data too. Here the error names the place of the bad value.
"""

from __future__ import annotations

import math
from typing import Any, cast

from .errors import InvalidJobError

_PLAIN_TYPES = "use None, bool, int, float, str, lists, and dicts whose keys are str"
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_DEPTH_MAX = 100


def check_plain(name: str, value: Any) -> None:
    """Checks that a value is plain data. Tuples count as lists.

    Raises:
        InvalidJobError: A part of it is not. The message has its path.
    """
    _check(name, value, 0)


def _check(path: str, value: Any, depth: int) -> None:  # noqa: C901
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int):
        _check_integer(path, value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidJobError(f"{path} is {value}, which JSON has not", hint="use None")
    elif depth >= _DEPTH_MAX:
        raise InvalidJobError(f"{path} is nested deeper than {_DEPTH_MAX} levels")
    elif isinstance(value, dict):
        for key, item in cast("dict[Any, Any]", value).items():
            if not isinstance(key, str):
                raise InvalidJobError(
                    f"{path} has the key {key!r}, which is no str", hint=_PLAIN_TYPES
                )
            _check(f"{path}[{key!r}]", item, depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("list[Any]", value)):
            _check(f"{path}[{index}]", item, depth + 1)
    else:
        kind = type(value).__name__
        article = "an" if kind[0] in "aeiou" else "a"
        raise InvalidJobError(
            f"{path} is {article} {kind}, which is not plain data", hint=_PLAIN_TYPES
        )


def _check_integer(path: str, value: int) -> None:
    if not _INT_MIN <= value <= _INT_MAX:
        raise InvalidJobError(
            f"{path} is {value}, which is beyond 64 bits", hint="send longer integers as str"
        )
