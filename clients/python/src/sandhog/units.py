"""Durations and sizes as callers write them."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any

from .errors import InvalidJobError

Duration = float | int | timedelta
"""Seconds, or a timedelta."""

Size = int | str
"""Bytes, or text such as `512MiB`."""

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LONGEST_S = 400 * 86_400


def seconds(name: str, value: Any) -> float:
    """Returns a duration in seconds.

    Raises:
        InvalidJobError: The value is no duration between 0 and 400 days.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    valid = not isinstance(number, bool) and isinstance(number, int | float)
    if not valid or not math.isfinite(number) or not 0 <= number <= _LONGEST_S:
        raise InvalidJobError(
            f"{name} {value!r} is no duration",
            hint="use seconds from 0 to 400 days, as a number or a timedelta",
        )
    return float(number)


def milliseconds(name: str, value: Any) -> int:
    """Returns a duration in whole milliseconds, rounded up.

    Raises:
        InvalidJobError: The value is no duration between 0 and 400 days.
    """
    return math.ceil(round(seconds(name, value) * 1000, 6))


def size(name: str, value: Any) -> int:
    """Returns a size in bytes. Units are powers of 1024, as in the wire contract.

    Raises:
        InvalidJobError: The value is no size.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidJobError(
            f"{name} {value!r} is no size",
            hint='use a number of bytes, or text such as "512MiB" or "2GiB"',
        )
    return math.ceil(float(match[1]) * 1024 ** _POWERS[match[2].lower()])


def count(name: str, value: Any) -> int:
    """Returns a number of things.

    Raises:
        InvalidJobError: The value is no whole number of at least 0.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidJobError(f"{name} {value!r} is no number", hint="use a whole number from 0")
    return value


def describe_size(size: int) -> str:
    """Returns a size as text, such as `64.0 MiB`."""
    scaled, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if scaled < 1024:
            break
        scaled, unit = scaled / 1024, larger
    return f"{size} bytes" if unit == "bytes" else f"{scaled:.1f} {unit}"
