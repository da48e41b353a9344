"""The options of a job, as keyword arguments of `run`, `submit`, `map` and the decorators."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from .outcome import Outcome
    from .units import Duration, Size

FileContent = str | bytes | os.PathLike[str]
"""Content of a file: text, bytes, or the path of a file or folder of this machine."""

_ALIASES = {
    "cpus": "cpu",
    "gpus": "gpu",
    "timeout_ms": "timeout",
    "pids": "processes",
    "idempotency_key": "id",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPUs that a job needs.

    Attributes:
        count: Number of GPUs.
        memory: Memory of each, in bytes or as text, if a part of a GPU is enough.
        model: Tag of a model of GPU, such as `h100`, or None for any.

    Example:
        >>> sandhog.Gpu(2, model="h100")
        Gpu(count=2, memory=None, model='h100')
    """

    count: int = 1
    memory: Size | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Retries:
    """Retries of a job whose program fails. Attempts lost to a fault of Sandhog do not count.

    Attributes:
        attempts: Maximum number of attempts, from 1 to 100.
        on: Outcomes that are retried; every outcome that a program causes, if None.
        backoff: Longest wait before the first retry, in seconds. It doubles with each retry.

    Example:
        >>> retries = sandhog.Retries(attempts=2, on=["failed"], backoff=0)
        >>> client.run("exit(1)", retries=retries).attempts
        2
    """

    attempts: int = 3
    on: Sequence[Outcome | str] | None = None
    backoff: Duration = 1


class ModelOptions(TypedDict, total=False):
    """Options of every job, also of one that asks a model. All are optional.

    Durations are seconds or `timedelta`; sizes are bytes or text such as `512MiB`.

    Example:
        >>> options: sandhog.ModelOptions = {"timeout": 5, "tenant": "acme", "priority": 9}
        >>> client.infer("python", "a text", **options).ok
        False
    """

    timeout: Duration
    """Limit of wall-clock time; the image's own if left out, usually 30 s."""
    output: Size
    """Bytes that are kept of standard output, and of standard error."""
    gpu: int | str | Gpu
    """GPUs: a number, a model such as `h100` or `h100:2`, or a `Gpu`."""
    id: str
    """Id of the job and its idempotency key: a known id is not run a second time."""
    tags: str | Iterable[str]
    """Tags that the worker must offer; `cpu` if left out."""
    tenant: str
    """Owner of the job. Tenants take turns."""
    priority: int
    """From 0 (least) to 9; 4 if left out."""
    delay: Duration
    """Time after submission before which the job does not start."""
    at: datetime
    """Time before which the job does not start."""
    ttl: Duration
    """Time after submission at which a job that has not started expires."""
    retries: int | Retries
    """Retries of a failing program: their number, or `Retries`."""
    unique: str
    """Key that only one job may hold; a second job is rejected while it is held."""
    unique_ttl: Duration
    """Time for which the key is held at least."""
    keep: Duration
    """Time for which the result is kept in Redis; a day if left out, an hour in `map`."""
    reply: str
    """Name of a reply stream of your own that gets the result too."""
    traceparent: str
    """Trace of the job, in the W3C format."""
    tracestate: str
    """State of the trace, in the W3C format."""


class JobOptions(ModelOptions, total=False):
    """Options of a job that runs a program, in addition to `ModelOptions`. All are optional.

    Example:
        >>> options: sandhog.JobOptions = {"timeout": 5, "memory": "256MiB", "tenant": "acme"}
        >>> client.run("print(1)", **options).ok
        True
    """

    image: str
    """Image in which the job runs; `python` if left out."""
    language: str
    """Language of the code: one that the image runs; the image's own if left out."""
    argv: Sequence[str]
    """A program of the image and its arguments, instead of code."""
    args: Sequence[str]
    """Arguments: `sys.argv[1:]` in Python, `$1 …` in bash."""
    stdin: str | bytes
    """Standard input."""
    env: Mapping[str, str]
    """Environment variables."""
    secrets: Sequence[str]
    """Names of secrets of the worker that the program gets in its environment."""
    input: Any
    """Plain data that the program sees as `input_data`."""
    file: str
    """Name of the file that gets the code, for tracebacks."""
    files: Mapping[str, FileContent]
    """Files of the working directory, by path: text, bytes, or a path of this machine."""
    fetch: Sequence[str]
    """Patterns of files that the result brings back, such as `out/**`."""
    infer: Sequence[str]
    """Images whose models the program may ask."""
    runtime: str
    """Container runtime, where the worker lets jobs choose."""
    expect_value: bool
    """Fail the job if its code ends without a value."""

    cpu_time: Duration
    """Limit of CPU time of all processes together."""
    cpu: float
    """Share of the machine in cores, such as 0.5."""
    memory: Size
    """Limit of memory of all processes together, scratch files included."""
    stack: Size
    """Size of the stack with which the program starts."""
    processes: int
    """Limit of processes and threads at once."""
    scratch: Size
    """Limit of each scratch space: `/tmp`, `/dev/shm` and the working directory."""
    scratch_inodes: int
    """Limit of files and directories in each scratch space."""
    output_total: Size
    """Bytes that the program may write to both before it is stopped."""
    fetch_files: int
    """Number of files that `fetch` may bring back."""
    fetch_bytes: Size
    """Bytes of all files that `fetch` may bring back."""
    displays: int
    """Number of displays that are kept."""
    display_bytes: Size
    """Bytes of one display."""
    display_total: Size
    """Bytes of all displays."""


JOB_OPTIONS = frozenset({*ModelOptions.__annotations__, *JobOptions.__annotations__})
"""Names of all options of a job that runs a program."""

MODEL_OPTIONS = frozenset(ModelOptions.__annotations__)
"""Names of all options of a job that asks a model."""


def check_names(options: Mapping[str, Any], allowed: frozenset[str] = JOB_OPTIONS) -> None:
    """Checks the names of options.

    Raises:
        TypeError: There is no option of that name.
    """
    for name in options:
        if name in allowed:
            continue
        if name in JOB_OPTIONS:
            raise TypeError(f"a job that asks a model has no option {name!r}")
        near = _ALIASES.get(name) or next(iter(difflib.get_close_matches(name, allowed, n=1)), None)
        suffix = f"; did you mean {near!r}?" if near else ""
        raise TypeError(f"a job has no option {name!r}{suffix}")
