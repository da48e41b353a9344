"""The result of a job."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from .errors import ERROR_OF_OUTCOME, NoValueError, ProtocolError
from .outcome import Outcome
from .result_text import hint_of, summary_of, text_of
from .wire import text_or_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

_T = TypeVar("_T")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ProgramException:
    """The exception that left the program.

    Attributes:
        type: Name of its class, such as `ZeroDivisionError`.
        message: Its text.
        traceback: The traceback as the language prints it.

    Example:
        >>> client.run("1 / 0").exception.type
        'ZeroDivisionError'
    """

    type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class ResultError:
    """The reason why a job was rejected, lost or not started.

    Attributes:
        code: Code of the wire contract, such as `unknown_image`.
        message: Text with the bad value and the allowed ones.

    Example:
        >>> client.run("1", image="pyton").error.code
        'unknown_image'
    """

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources that the last attempt of a job used.

    Attributes:
        wall_ms: Wall-clock time in milliseconds.
        cpu_ms: CPU time of all processes in milliseconds.
        memory_peak: Largest memory of all processes together in bytes.
        stdout_bytes: Bytes written to standard output, dropped ones included.
        stderr_bytes: Bytes written to standard error, dropped ones included.
        first_token_ms: Time until the first piece of a model's stream, or None.
        prompt_tokens: Tokens of a model's input, or None.
        completion_tokens: Tokens of a model's answer, or None.
        infer: Figures of the model calls of a program, or None.

    Example:
        >>> client.run("bytearray(50 * 2**20)").usage.memory_peak > 50 * 2**20
        True
    """

    wall_ms: int = 0
    cpu_ms: int = 0
    memory_peak: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    first_token_ms: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    infer: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Display:
    """An object that Python code displayed, in every form that it offers.

    Displays come from an untrusted program: show HTML and SVG only in a frame without permissions.

    Attributes:
        data: Forms by mime type: bytes for pictures and other binary forms, else text or data.

    Example:
        >>> code = "display({'text/html': '<b>7</b>', 'text/plain': '7'}, raw=True)"
        >>> shown = client.run(code).displays[0]
        >>> shown.html, shown.text, shown.png
        ('<b>7</b>', '7', None)
    """

    data: Mapping[str, Any]

    @property
    def png(self) -> bytes | None:
        r"""The form `image/png`, such as a matplotlib figure.

        Example:
            >>> code = "import matplotlib.pyplot as plt; plt.plot([1, 3, 2])"
            >>> client.run(code, image="datascience").displays[0].png[:4]
            b'\x89PNG'
        """
        return self._form("image/png", bytes)

    @property
    def html(self) -> str | None:
        """The form `text/html`, such as a table of pandas.

        Example:
            >>> code = "import pandas as pd; pd.DataFrame({'a': [1]})"
            >>> "<table" in client.run(code, image="datascience").displays[0].html
            True
        """
        return self._form("text/html", str)

    @property
    def text(self) -> str | None:
        """The form `text/plain`.

        Example:
            >>> client.run("display([1, 2])").displays[0].text
            '[1, 2]'
        """
        return self._form("text/plain", str)

    def _form(self, mime: str, kind: type[_T]) -> _T | None:
        found = self.data.get(mime)
        return found if isinstance(found, kind) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    r"""The one result of a job.

    Attributes:
        id: The job's id.
        outcome: The reason for which the job ended.
        exit_code: Exit code of the program if it exited by itself.
        signal: Name of the signal that ended the program, such as `SIGSEGV`.
        value: Value of the code or answer of the model; None if there is none or it is null.
        has_value: True if the result has a value; distinguishes null from no value.
        value_dropped: Name of the type and the reason if the value was left out.
        completed: True if the code ran to its end, where the language reports it.
        stdout_bytes: Standard output.
        stderr_bytes: Standard error.
        truncated: True if standard output, or standard error, lost bytes.
        files: Files that `fetch` brought back, by path.
        not_fetched: Reasons for files that were left out, by path.
        displays: Objects that the code displayed, in order.
        displays_dropped: Number of dropped displays.
        stage: `compile` or `run` in compiled languages.
        exception: The exception that left the program.
        error: The reason why the job was rejected, lost or not started.
        usage: Resources that the last attempt used.
        attempts: Number of attempts, lost ones included.
        worker: Name of the worker that ran the last attempt.
        image: The image that the job named.
        image_digest: The exact build of the image.
        runtime: The container runtime that ran the job.
        gpus: The GPUs that the job had.
        warnings: Remarks on the job, such as unknown fields.
        finished_at: Time of the end.
        index: Position of the job's input, in results of `imap`.
        raw: The decoded result as it was published.

    Example:
        >>> result = client.run("print(6 * 7)")
        >>> result.ok, result.stdout, result.exit_code
        (True, '42\n', 0)
    """

    id: str
    outcome: Outcome
    exit_code: int | None = None
    signal: str | None = None
    value: Any = None
    has_value: bool = False
    value_dropped: Mapping[str, str] | None = None
    completed: bool | None = None
    stdout_bytes: bytes = b""
    stderr_bytes: bytes = b""
    truncated: tuple[bool, bool] = (False, False)
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    not_fetched: Mapping[str, str] = field(default_factory=dict[str, str])
    displays: tuple[Display, ...] = ()
    displays_dropped: int = 0
    stage: str | None = None
    exception: ProgramException | None = None
    error: ResultError | None = None
    usage: Usage = field(default_factory=Usage)
    attempts: int = 0
    worker: str | None = None
    image: str | None = None
    image_digest: str | None = None
    runtime: str | None = None
    gpus: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    finished_at: datetime | None = None
    index: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)

    @classmethod
    def from_wire(cls, raw: Mapping[str, Any], index: int | None = None) -> Self:
        """Returns the result that a decoded map of the wire contract describes.

        Raises:
            ProtocolError: The map is no result.

        Example:
            >>> sandhog.Result.from_wire({"id": "a", "outcome": "succeeded", "value": 7}).value
            7
        """
        try:
            outcome = Outcome(raw["outcome"])
        except (KeyError, ValueError) as error:
            raise ProtocolError(
                f"the result of job {raw.get('id')} has the outcome {raw.get('outcome')!r}, which "
                "this version of the package does not know",
                hint="upgrade the package",
            ) from error
        files, unread = _files(raw.get("files", _NOTHING))
        truncated = raw.get("truncated", _NOTHING)
        exception, error = raw.get("exception"), raw.get("error")
        ended = raw.get("finished_at_ms")
        return cls(
            id=str(raw.get("id", "")),
            outcome=outcome,
            exit_code=raw.get("exit_code"),
            signal=raw.get("signal"),
            value=raw.get("value"),
            has_value="value" in raw,
            value_dropped=raw.get("value_dropped"),
            completed=raw.get("completed"),
            stdout_bytes=text_or_bytes(raw.get("stdout")) or b"",
            stderr_bytes=text_or_bytes(raw.get("stderr")) or b"",
            truncated=(bool(truncated.get("stdout")), bool(truncated.get("stderr"))),
            files=files,
            not_fetched={**raw.get("not_fetched", _NOTHING), **unread},
            displays=tuple(Display(_display(found)) for found in raw.get("displays", ())),
            displays_dropped=raw.get("displays_dropped", 0),
            stage=raw.get("stage"),
            exception=None
            if exception is None
            else ProgramException(
                *(str(exception.get(name, "")) for name in ("type", "message", "traceback"))
            ),
            error=None
            if error is None
            else ResultError(str(error.get("code", "")), str(error.get("message", ""))),
            usage=_usage(raw.get("usage", _NOTHING)),
            attempts=raw.get("attempts", 0),
            worker=raw.get("worker"),
            image=raw.get("image"),
            image_digest=raw.get("image_digest"),
            runtime=raw.get("runtime"),
            gpus=tuple(raw.get("gpus", ())),
            warnings=tuple(raw.get("warnings", ())),
            finished_at=None if ended is None else datetime.fromtimestamp(ended / 1000, UTC),
            index=index,
            raw=raw,
        )

    @property
    def ok(self) -> bool:
        """True if the job succeeded.

        Example:
            >>> client.run("exit(3)").ok
            False
        """
        return self.outcome is Outcome.SUCCEEDED

    @property
    def stdout(self) -> str:
        """Standard output as text. Bytes that are not UTF-8 are replaced.

        Example:
            >>> client.run("print('no newline', end='')").stdout
            'no newline'
        """
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        r"""Standard error as text. Bytes that are not UTF-8 are replaced.

        Example:
            >>> client.run("import sys; print('careful', file=sys.stderr)").stderr
            'careful\n'
        """
        return self.stderr_bytes.decode("utf-8", "replace")

    def raise_for_outcome(self) -> Self:
        r"""Returns the result itself if the job succeeded.

        Raises:
            OutcomeError: The job ended without success; each outcome has a subclass.

        Example:
            >>> client.run("print(1)").raise_for_outcome().stdout
            '1\n'
            >>> client.run("exit(3)").raise_for_outcome()
            Traceback (most recent call last):
                ...
            sandhog.FailedError: the program exited with code 3
        """
        if self.ok:
            return self
        raise ERROR_OF_OUTCOME[self.outcome](self)

    def unwrap(self) -> Any:
        """Returns the value of the code or the answer of the model.

        Raises:
            OutcomeError: The job ended without success.
            NoValueError: The job succeeded without a value.

        Example:
            >>> client.run("sum(input_data)", input=[1, 2, 3]).unwrap()
            6
        """
        self.raise_for_outcome()
        if self.has_value:
            return self.value
        if self.value_dropped is None:
            raise NoValueError(
                "the program succeeded, but it has no value",
                self,
                hint="end it with an expression, or define main() and return a value",
            )
        dropped = self.value_dropped
        raise NoValueError(
            f"the value, a {dropped.get('type')}, was left out: {dropped.get('reason')}",
            self,
            hint="return None, booleans, numbers, strings, lists, or dicts whose keys are strings",
        )

    def summary(self) -> str:
        """Returns the outcome and its reason as text, without a final full stop.

        Example:
            >>> client.run("[][0]").summary()
            'the program failed: IndexError: list index out of range'
        """
        return summary_of(self)

    def hint(self) -> str | None:
        """Returns advice for a job without success, or None.

        Example:
            >>> client.run("while True: pass", timeout=0.2).hint()
            'make it faster, or raise `timeout`'
        """
        return hint_of(self)

    def text(self, limit: int = 4000) -> str:
        """Returns the whole result as text for a language model.

        The text has the outcome, the output, the value, the traceback and the names of pictures and
        files. Each part longer than `limit` characters keeps its beginning and its end.

        Example:
            >>> print(client.run("print('hello'); 1 / 0").text())
            the program failed: ZeroDivisionError: division by zero
            stdout:
            hello
            traceback:
            Traceback (most recent call last):
              File "main.py", line 1, in <module>
                print('hello'); 1 / 0
                                ~~^~~
            ZeroDivisionError: division by zero
        """
        return text_of(self, limit)


def _files(found: Mapping[str, Any]) -> tuple[dict[str, bytes], dict[str, str]]:
    files: dict[str, bytes] = {}
    unread: dict[str, str] = {}
    for path, content in found.items():
        data = text_or_bytes(content)
        if data is None:
            unread[path] = "unknown_form"
        else:
            files[path] = data
    return files, unread


def _display(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the forms of a display. Base64 stands for the forms that are no text and no data."""
    return {mime: _form(mime, data) for mime, data in found.items()}


def _form(mime: str, data: Any) -> Any:
    is_text = mime.startswith("text/") or mime.endswith("+xml") or mime == "application/javascript"
    is_data = mime == "application/json" or mime.endswith("+json")
    if is_text or is_data or not isinstance(data, str):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return data


def _usage(found: Mapping[str, Any]) -> Usage:
    tokens = cast("Mapping[str, Any]", found.get("tokens", _NOTHING))
    return Usage(
        wall_ms=found.get("wall_ms", 0),
        cpu_ms=found.get("cpu_ms", 0),
        memory_peak=found.get("memory_peak", 0),
        stdout_bytes=found.get("stdout_bytes", 0),
        stderr_bytes=found.get("stderr_bytes", 0),
        first_token_ms=found.get("first_token_ms"),
        prompt_tokens=tokens.get("prompt"),
        completion_tokens=tokens.get("completion"),
        infer=found.get("infer"),
    )
