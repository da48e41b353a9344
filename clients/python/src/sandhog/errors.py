"""Exceptions of the client, and one for each outcome of a job without success.

The text of an exception is complete: it has the reason, the bad value and, on a last line, advice.
It can be shown to a person or to a language model unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .outcome import Outcome

if TYPE_CHECKING:
    from .result import Result


class SandhogError(Exception):
    """Base class of all exceptions of this package.

    Attributes:
        hint: Advice for the caller, or None. It is the last line of the exception's text.

    Example:
        >>> try:
        ...     client.run("print(1)", memory="64 parsecs")
        ... except sandhog.SandhogError as error:
        ...     print(error)
        memory '64 parsecs' is no size
        hint: use a number of bytes, or text such as "512MiB" or "2GiB"
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\nhint: {hint}")
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception goes from one process to another with all of its attributes.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[SandhogError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> SandhogError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ConfigurationError(SandhogError, ValueError):
    """A setting of the client is not valid, such as the address of Redis.

    Example:
        >>> sandhog.Sandhog("http://127.0.0.1")
        Traceback (most recent call last):
            ...
        sandhog.ConfigurationError: the Redis URL 'http://127.0.0.1' has an unknown scheme
        hint: use redis[s]://[user:password@]host:port[/db], unix:/path, \
redis[s]+sentinel://host:port,…/service or redis[s]+cluster://host:port,…
    """


class InvalidJobError(SandhogError, ValueError):
    """The job is not valid. It was not sent.

    Example:
        >>> client.run("input_data", input={"when": object()})
        Traceback (most recent call last):
            ...
        sandhog.InvalidJobError: input['when'] is an object, which is not plain data
        hint: use None, bool, int, float, str, lists, and dicts whose keys are str
    """


class JobTooLargeError(InvalidJobError):
    """The job's payload is larger than any worker admits. It was not sent.

    Attributes:
        size: Size of the encoded payload in bytes.
        limit: Largest size in bytes that an operator can allow.

    Example:
        >>> try:
        ...     client.run("", stdin=bytes(17 * 2**20))
        ... except sandhog.JobTooLargeError as error:
        ...     print(error.limit)
        16777216
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the job's payload has {size:,} bytes; workers admit at most {limit:,}",
            hint="compress large data, or build it into an image",
        )
        self.size = size
        self.limit = limit


class RedisError(SandhogError):
    """A call of Redis failed.

    Attributes:
        address: Address of the server, without its password.

    Example:
        >>> try:
        ...     sandhog.Sandhog("redis://127.0.0.1:1").run("print(1)")
        ... except sandhog.RedisError as error:
        ...     print(error.address)
        redis://127.0.0.1:1
    """

    def __init__(self, message: str, address: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.address = address


class RedisUnavailableError(RedisError, ConnectionError):
    """Redis cannot be reached, or did not answer for the client's `outage_timeout`.

    Attributes:
        job_id: Id of the job that the caller waited for, or None. The job stays in the queue: wait
            for it later with `client.job(id)`.

    Example:
        >>> try:
        ...     sandhog.Sandhog("redis://127.0.0.1:1").run("print(1)")
        ... except sandhog.RedisUnavailableError as error:
        ...     print("cannot reach Redis at redis://127.0.0.1:1" in str(error))
        True
    """

    def __init__(
        self, message: str, address: str, *, hint: str | None = None, job_id: str | None = None
    ) -> None:
        super().__init__(message, address, hint=hint)
        self.message = message
        self.job_id = job_id

    def while_waiting_for(self, job_id: str) -> RedisUnavailableError:
        """Returns the exception for the caller that waits for a job.

        Example:
            >>> error = sandhog.RedisUnavailableError("cannot reach Redis", "redis://h:6379")
            >>> print(error.while_waiting_for("a"))
            cannot reach Redis; job a was submitted before and stays in the queue
        """
        message = f"{self.message}; job {job_id} was submitted before and stays in the queue"
        return RedisUnavailableError(message, self.address, hint=self.hint, job_id=job_id)


class RedisRefusedError(RedisError):
    """Redis answered a command with an error: a wrong password, a missing permission, no memory.

    Example:
        >>> address = client.address.replace("redis://", "redis://mallory:wrong@")
        >>> try:
        ...     sandhog.Sandhog(address).run("print(1)")
        ... except sandhog.RedisRefusedError as error:
        ...     print("invalid username-password pair" in str(error))
        True
    """


class ResultTimeoutError(SandhogError, TimeoutError):
    """No result arrived within the time for which the caller wanted to wait. The job continues.

    Attributes:
        job_id: The job's id.

    Example:
        >>> job = client.submit("print(1)", delay=3600)
        >>> try:
        ...     job.wait(timeout=0.1)
        ... except sandhog.ResultTimeoutError as error:
        ...     print(error.job_id == job.id)
        True
        >>> job.cancel()
    """

    def __init__(self, job_id: str, waited: float) -> None:
        super().__init__(
            f"job {job_id} has no result after {waited:g} s",
            hint="the job is not cancelled; wait again, or check that a worker of its namespace "
            "offers its tags",
        )
        self.job_id = job_id


class ProtocolError(SandhogError):
    """Redis holds data that this version of the client cannot decode.

    Example:
        >>> issubclass(sandhog.ProtocolError, sandhog.SandhogError)
        True
    """


class NoValueError(SandhogError, ValueError):
    """The program succeeded, but its result has no value.

    Attributes:
        result: The result. Its `value_dropped` has the reason if the program had a value.

    Example:
        >>> client.run("{1, 2}").unwrap()
        Traceback (most recent call last):
            ...
        sandhog.NoValueError: the value, a set, was left out: it is not plain data: ...
        hint: return None, booleans, numbers, strings, lists, or dicts whose keys are strings
    """

    def __init__(self, message: str, result: Result, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result


class FunctionError(SandhogError, TypeError):
    """A function or class cannot be used with `@sandhog.function` or `@sandhog.model`.

    Example:
        >>> sandhog.function(len)
        Traceback (most recent call last):
            ...
        sandhog.FunctionError: len is not a function that is written in Python
        hint: wrap it in a function of your own
    """


class ProgramError(SandhogError):
    """The program `sandhog`, which changes schedules and builds images, is missing or failed.

    Attributes:
        exit_code: Exit code of the program, or None if it could not be started.

    Example:
        >>> try:
        ...     client.schedules.pause("unknown")
        ... except sandhog.ProgramError as error:
        ...     print(error)
        there is no schedule unknown
        hint: `sandhog schedule list` lists the schedules
    """

    def __init__(
        self, message: str, *, exit_code: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class OutcomeError(SandhogError):
    """A job that ended without success. Each outcome has a subclass.

    Attributes:
        result: The job's result.
        code: Code of the result's `error`, such as `unknown_image`, or None.

    Example:
        >>> try:
        ...     client.run("print('so far'); 1 / 0").raise_for_outcome()
        ... except sandhog.OutcomeError as error:
        ...     print(error.result.outcome, error.result.stdout)
        failed so far
        <BLANKLINE>
    """

    def __init__(self, result: Result) -> None:
        super().__init__(result.summary(), hint=result.hint())
        self.result = result
        self.code = result.error.code if result.error else None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result,)


class FailedError(OutcomeError):
    """The program failed: an exception, another exit code than 0, or a signal.

    Example:
        >>> client.run("{}['key']").raise_for_outcome()
        Traceback (most recent call last):
            ...
        sandhog.FailedError: the program failed: KeyError: 'key'
    """


class TimedOutError(OutcomeError, TimeoutError):
    """The program's wall-clock time ran out.

    Example:
        >>> client.run("while True: pass", timeout=0.5).raise_for_outcome()
        Traceback (most recent call last):
            ...
        sandhog.TimedOutError: the program timed out after 0.5 s
        hint: make it faster, or raise `timeout`
    """


class CpuLimitError(OutcomeError):
    """The program used up its CPU time.

    Example:
        >>> client.run("while True: pass", cpu_time=0.2).raise_for_outcome()
        Traceback (most recent call last):
            ...
        sandhog.CpuLimitError: the program used up its CPU time of 0.2 s
        hint: make it faster, or raise `cpu_time`
    """


class OutOfMemoryError(OutcomeError, MemoryError):
    """The program reached its memory limit.

    Example:
        >>> client.run("bytearray(2**30)", memory="64MiB").raise_for_outcome()
        Traceback (most recent call last):
            ...
        sandhog.OutOfMemoryError: the program ran out of memory: it reached its limit of ...
        hint: use less memory at a time, or raise `memory`
    """


class ProcessLimitError(OutcomeError):
    """The program failed after it was refused a process or thread.

    Example:
        >>> code = "import subprocess as s; [s.Popen(['sleep', '9']) for _ in range(99)]"
        >>> client.run(code, processes=8).raise_for_outcome()
        Traceback (most recent call last):
            ...
        sandhog.ProcessLimitError: the program failed because it could not start a ...
        hint: start fewer processes and threads, or raise `processes`
    """


class ScratchLimitError(OutcomeError):
    """The program failed with a scratch space full.

    Example:
        >>> client.run("open('f', 'wb').write(bytes(2**24))", scratch="1MiB").raise_for_outcome()
        Traceback (most recent call last):
            ...
        sandhog.ScratchLimitError: the program failed because its scratch space was full
        hint: write fewer or smaller files, or raise `scratch` or `scratch_inodes`
    """


class OutputLimitError(OutcomeError):
    """The program wrote too much output and was stopped.

    Example:
        >>> client.run("while True: print('x' * 999)", output_total="1MiB").raise_for_outcome()
        Traceback (most recent call last):
            ...
        sandhog.OutputLimitError: the program was stopped because it wrote too much output
        hint: print less, or raise `output_total`
    """


class CancelledError(OutcomeError):
    """A client requested the end of the job.

    Example:
        >>> job = client.submit("while True: pass")
        >>> job.cancel()
        >>> job.wait().raise_for_outcome()
        Traceback (most recent call last):
            ...
        sandhog.CancelledError: the job was cancelled
    """


class ExpiredError(OutcomeError):
    """The job was not started in time.

    Example:
        >>> client.run("print(1)", tags=["nowhere"], ttl=0.1).raise_for_outcome()
        Traceback (most recent call last):
            ...
        sandhog.ExpiredError: the job expired before a worker started it
        hint: check that a worker offers its tags, or raise `ttl`
    """


class RejectedError(OutcomeError):
    """The job could not be accepted. `code` and the message have the reason.

    Example:
        >>> try:
        ...     client.run("print(1)", image="pyton").raise_for_outcome()
        ... except sandhog.RejectedError as error:
        ...     print(error.code)
        unknown_image
    """


class LostError(OutcomeError):
    """Every attempt was lost to a fault of Sandhog, not of the program.

    Example:
        >>> issubclass(sandhog.LostError, sandhog.OutcomeError)
        True
    """


ERROR_OF_OUTCOME: dict[Outcome, type[OutcomeError]] = {
    Outcome.FAILED: FailedError,
    Outcome.TIMED_OUT: TimedOutError,
    Outcome.CPU_LIMIT: CpuLimitError,
    Outcome.OUT_OF_MEMORY: OutOfMemoryError,
    Outcome.PROCESS_LIMIT: ProcessLimitError,
    Outcome.SCRATCH_LIMIT: ScratchLimitError,
    Outcome.OUTPUT_LIMIT: OutputLimitError,
    Outcome.CANCELLED: CancelledError,
    Outcome.EXPIRED: ExpiredError,
    Outcome.REJECTED: RejectedError,
    Outcome.LOST: LostError,
}
"""The exception of each outcome without success."""
