"""The outcomes with which a job ends."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """Outcome of a job: the reason for which it ended.

    Each member is equal to its word on the wire.

    Example:
        >>> client.run("1 / 0").outcome is sandhog.Outcome.FAILED
        True
        >>> sandhog.Outcome.TIMED_OUT == "timed_out"
        True
    """

    SUCCEEDED = "succeeded"
    """The program exited with code 0 and without an exception."""
    FAILED = "failed"
    """The program exited with another code, by a signal or with an exception."""
    TIMED_OUT = "timed_out"
    """The wall-clock time ran out."""
    CPU_LIMIT = "cpu_limit"
    """The CPU time ran out."""
    OUT_OF_MEMORY = "out_of_memory"
    """The processes of the program reached their memory limit."""
    PROCESS_LIMIT = "process_limit"
    """The program failed after it was refused a process or thread."""
    SCRATCH_LIMIT = "scratch_limit"
    """The program failed with a scratch space full."""
    OUTPUT_LIMIT = "output_limit"
    """The program wrote more than `output_total` bytes and was stopped."""
    CANCELLED = "cancelled"
    """A client requested the end of the job."""
    EXPIRED = "expired"
    """The job was not started in time."""
    REJECTED = "rejected"
    """The job could not be accepted; the result's `error` has the reason."""
    LOST = "lost"
    """Every attempt was lost to a fault of Sandhog; the result's `error` has the reason."""


PROGRAM_OUTCOMES = (
    Outcome.FAILED,
    Outcome.TIMED_OUT,
    Outcome.CPU_LIMIT,
    Outcome.OUT_OF_MEMORY,
    Outcome.PROCESS_LIMIT,
    Outcome.SCRATCH_LIMIT,
    Outcome.OUTPUT_LIMIT,
)
"""Outcomes that the program caused. Only these may be retried by request."""
