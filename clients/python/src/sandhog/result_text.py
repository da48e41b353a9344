"""A result as text, for exceptions, persons and language models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .outcome import Outcome
from .units import describe_size

if TYPE_CHECKING:
    from .result import Result

_STDERR_TAIL = 1_500


def summary_of(result: Result) -> str:  # noqa: C901, PLR0911
    """Returns the outcome and its reason."""
    error = result.error.message if result.error else None
    match result.outcome:
        case Outcome.SUCCEEDED:
            return "the program succeeded"
        case Outcome.FAILED:
            return _failure(result)
        case Outcome.TIMED_OUT:
            return f"the program timed out after {_seconds(result.usage.wall_ms)} s"
        case Outcome.CPU_LIMIT:
            return f"the program used up its CPU time of {_seconds(result.usage.cpu_ms)} s"
        case Outcome.OUT_OF_MEMORY:
            peak = describe_size(result.usage.memory_peak)
            return f"the program ran out of memory: it reached its limit of {peak}"
        case Outcome.PROCESS_LIMIT:
            return "the program failed because it could not start a process or thread"
        case Outcome.SCRATCH_LIMIT:
            return "the program failed because its scratch space was full"
        case Outcome.OUTPUT_LIMIT:
            return "the program was stopped because it wrote too much output"
        case Outcome.CANCELLED:
            return "the job was cancelled"
        case Outcome.EXPIRED:
            return "the job expired before a worker started it" + (f": {error}" if error else "")
        case Outcome.REJECTED:
            return f"the job was rejected: {error}"
        case Outcome.LOST:
            return f"the job was lost: {error}"


def hint_of(result: Result) -> str | None:
    """Returns advice for a job without success."""
    code = result.error.code if result.error else None
    by_outcome = {
        Outcome.TIMED_OUT: "make it faster, or raise `timeout`",
        Outcome.CPU_LIMIT: "make it faster, or raise `cpu_time`",
        Outcome.OUT_OF_MEMORY: "use less memory at a time, or raise `memory`",
        Outcome.PROCESS_LIMIT: "start fewer processes and threads, or raise `processes`",
        Outcome.SCRATCH_LIMIT: "write fewer or smaller files, or raise `scratch` or "
        "`scratch_inodes`",
        Outcome.OUTPUT_LIMIT: "print less, or raise `output_total`",
        Outcome.EXPIRED: "check that a worker offers its tags, or raise `ttl`",
        Outcome.LOST: "submit it again; `sandhog dead show` has more about the fault",
    }
    by_code = {
        "payload_too_large": "compress large data, build it into an image, or raise "
        "worker.max_payload",
        "backlog_full": "submit it again later",
        "unknown_image": "name another `image`, or build it with `sandhog images build`",
        "secret_refused": "add a rule to the worker's policy.toml",
    }
    return by_code.get(code or "") or by_outcome.get(result.outcome) or _note(result)


def text_of(result: Result, limit: int) -> str:
    """Returns the whole result as text for a language model."""
    lines = [result.summary()]
    hint = result.hint()
    if hint:
        lines.append(f"hint: {hint}")
    stderr = _stderr_without_traceback(result)
    for name, text, cut in (
        ("stdout", result.stdout, result.truncated[0]),
        ("stderr", stderr, result.truncated[1]),
    ):
        if text.strip():
            lines.append(f"{name}:\n{shorten(text.rstrip(), limit)}")
        if cut:
            lines.append(f"{name} was longer than the limit `output`; the rest is lost")
    if result.exception and result.exception.traceback.strip():
        lines.append(f"traceback:\n{shorten(result.exception.traceback.rstrip(), limit)}")
    if result.has_value:
        lines.append(f"value: {shorten(json.dumps(result.value, ensure_ascii=False), limit)}")
    elif result.value_dropped:
        dropped = result.value_dropped
        lines.append(f"value: left out, a {dropped.get('type')}: {dropped.get('reason')}")
    lines.extend(_displays(result, limit))
    if result.files:
        sizes = (f"{path} ({describe_size(len(data))})" for path, data in result.files.items())
        lines.append(f"files: {', '.join(sizes)}")
    if result.not_fetched:
        reasons = (f"{path} ({reason})" for path, reason in result.not_fetched.items())
        lines.append(f"files that were not returned: {', '.join(reasons)}")
    return "\n".join(lines)


def shorten(text: str, limit: int) -> str:
    """Returns the beginning and the end of a long text. An error is in its last lines."""
    if len(text) <= limit:
        return text
    head, tail = limit // 2, limit - limit // 2
    left_out = len(text) - limit
    return f"{text[:head]}\n[{left_out} characters left out]\n{text[len(text) - tail :]}"


def _failure(result: Result) -> str:
    if result.exception:
        message = result.exception.message
        text = f"the program failed: {result.exception.type}"
        return f"{text}: {message}" if message else text
    if result.error:
        text = f"the program failed: {result.error.message}"
    elif result.stage == "compile":
        text = "the program could not be compiled"
    elif result.signal:
        text = f"the program was ended by {result.signal}"
    else:
        text = f"the program exited with code {result.exit_code}"
    tail = result.stderr.strip()[-_STDERR_TAIL:]
    return f"{text}: {tail}" if tail else text


def _note(result: Result) -> str | None:
    """Returns the note of the sandbox, such as that of a missing module."""
    if result.ok or not result.exception:
        return None
    last = result.stderr.rstrip().rpartition("\n")[2]
    return last.removeprefix("note:").strip() if last.startswith("note:") else None


def _stderr_without_traceback(result: Result) -> str:
    """Returns standard error without the traceback and the note, which stand elsewhere."""
    text = result.stderr
    if result.exception:
        place = text.rfind(result.exception.traceback.strip())
        if place >= 0 and result.exception.traceback.strip():
            return text[:place]
    return text


def _displays(result: Result, limit: int) -> list[str]:
    pictures = 0
    lines: list[str] = []
    for display in result.displays:
        if any(mime.startswith("image/") for mime in display.data):
            pictures += 1
        elif display.text is not None:
            lines.append(f"displayed:\n{shorten(display.text, limit)}")
    if pictures:
        lines.append(f"pictures: {pictures}")
    if result.displays_dropped:
        lines.append(f"displays that were dropped: {result.displays_dropped}")
    return lines


def _seconds(milliseconds: int) -> str:
    return f"{round(milliseconds / 1000, 1):g}"
