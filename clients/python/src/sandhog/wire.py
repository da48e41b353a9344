"""The wire contract: keys of Redis, and the encoding of jobs and results."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from .errors import InvalidJobError, JobTooLargeError, ProtocolError

_MSGPACK: Any = msgpack

PAYLOAD_MAX = 16 * 2**20
"""Largest payload in bytes that an operator can allow."""


class Keys:
    """The public keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._prefix = f"sandhog:{{{namespace}}}:"
        self.jobs = f"{self._prefix}jobs"

    def result(self, job_id: str) -> str:
        """Returns the key of a job's result."""
        return f"{self._prefix}result:{job_id}"

    def log(self, job_id: str) -> str:
        """Returns the key of a job's output while it runs."""
        return f"{self._prefix}log:{job_id}"

    def reply(self, name: str) -> str:
        """Returns the key of a reply stream."""
        return f"{self._prefix}reply:{name}"


def encode_payload(payload: dict[str, Any]) -> bytes:
    """Encodes a job as MessagePack, in which bytes need no base64.

    Raises:
        InvalidJobError: A part of it cannot be encoded.
        JobTooLargeError: It is larger than any worker admits.
    """
    try:
        encoded = cast("bytes", _MSGPACK.packb(payload, use_bin_type=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidJobError(f"the job cannot be encoded: {error}") from error
    if len(encoded) > PAYLOAD_MAX:
        raise JobTooLargeError(len(encoded), PAYLOAD_MAX)
    return encoded


def decode_result(job_id: str, encoded: bytes) -> dict[str, Any]:
    """Decodes a result, whose encoding is that of its job.

    Raises:
        ProtocolError: The bytes are no result.
    """
    try:
        if encoded[:1] == b"{":
            decoded: Any = json.loads(encoded)
        else:
            decoded = _MSGPACK.unpackb(encoded, raw=False, strict_map_key=False)
    except (ValueError, _MSGPACK.exceptions.UnpackException) as error:
        raise ProtocolError(f"the result of job {job_id} cannot be decoded: {error}") from error
    if not isinstance(decoded, dict) or "outcome" not in decoded:
        raise ProtocolError(f"the result of job {job_id} cannot be decoded: it has no outcome")
    return cast("dict[str, Any]", decoded)


def text_or_bytes(found: Any) -> bytes | None:
    """Returns the bytes of a field that is text, bytes or base64, or None in another form."""
    if isinstance(found, str):
        return found.encode("utf-8", "surrogatepass")
    if isinstance(found, bytes):
        return found
    if isinstance(found, dict):
        encoded = cast("dict[str, Any]", found).get("base64")
        if isinstance(encoded, str):
            try:
                return base64.b64decode(encoded, validate=True)
            except binascii.Error:
                return None
    return None
