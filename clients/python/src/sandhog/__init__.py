"""Client of Sandhog: runs untrusted code in sandboxes, through a queue on Redis.

Example:
    >>> import sandhog
    >>> with sandhog.Sandhog() as client:
    ...     print(client.run("print(6 * 7)").stdout, end="")
    42
"""

from __future__ import annotations

from .async_client import AsyncSandhog
from .async_job import AsyncJob
from .async_schedules import AsyncSchedules, Schedule
from .client import Sandhog
from .default import default_client
from .errors import (
    CancelledError,
    ConfigurationError,
    CpuLimitError,
    ExpiredError,
    FailedError,
    FunctionError,
    InvalidJobError,
    JobTooLargeError,
    LostError,
    NoValueError,
    OutcomeError,
    OutOfMemoryError,
    OutputLimitError,
    ProcessLimitError,
    ProgramError,
    ProtocolError,
    RedisError,
    RedisRefusedError,
    RedisUnavailableError,
    RejectedError,
    ResultTimeoutError,
    SandhogError,
    ScratchLimitError,
    TimedOutError,
)
from .functions import Function, function
from .models import Model, model
from .options import Gpu, JobOptions, ModelOptions, Retries
from .outcome import Outcome
from .output import Output
from .result import Display, ProgramException, Result, ResultError, Usage
from .schedules import Schedules
from .sync_job import Job

__version__ = "0.1.0"

__all__ = [
    "AsyncJob",
    "AsyncSandhog",
    "AsyncSchedules",
    "CancelledError",
    "ConfigurationError",
    "CpuLimitError",
    "Display",
    "ExpiredError",
    "FailedError",
    "Function",
    "FunctionError",
    "Gpu",
    "InvalidJobError",
    "Job",
    "JobOptions",
    "JobTooLargeError",
    "LostError",
    "Model",
    "ModelOptions",
    "NoValueError",
    "OutOfMemoryError",
    "Outcome",
    "OutcomeError",
    "Output",
    "OutputLimitError",
    "ProcessLimitError",
    "ProgramError",
    "ProgramException",
    "ProtocolError",
    "RedisError",
    "RedisRefusedError",
    "RedisUnavailableError",
    "RejectedError",
    "Result",
    "ResultError",
    "ResultTimeoutError",
    "Retries",
    "Sandhog",
    "SandhogError",
    "Schedule",
    "Schedules",
    "ScratchLimitError",
    "TimedOutError",
    "Usage",
    "__version__",
    "default_client",
    "function",
    "model",
]


def _name_exceptions() -> None:
    """Makes tracebacks name each exception as callers import it."""
    for found in list(globals().values()):
        if isinstance(found, type) and issubclass(found, SandhogError):
            found.__module__ = __name__


_name_exceptions()
