"""A job as the wire contract has it: its payload and the fields of its entry."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from .errors import InvalidJobError
from .job_files import read_files
from .options import MODEL_OPTIONS, Gpu, JobOptions, ModelOptions, Retries, check_names
from .outcome import PROGRAM_OUTCOMES
from .plain_data import check_plain
from .units import count, milliseconds, size
from .wire import encode_payload

_PLAIN_FIELDS = ("language", "stdin", "file", "runtime", "expect_value")
_LISTS = ("argv", "args", "secrets", "fetch", "infer")
_SIZES = (
    "memory",
    "stack",
    "scratch",
    "output",
    "output_total",
    "fetch_bytes",
    "display_bytes",
    "display_total",
)
_COUNTS = ("scratch_inodes", "fetch_files", "displays")
_TEXT_FIELDS = ("id", "tenant", "unique", "reply", "traceparent", "tracestate")
_DURATION_FIELDS = {"delay": "delay_ms", "ttl": "ttl_ms", "unique_ttl": "unique_ttl_ms"}


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job that is checked and can be submitted."""

    id: str
    has_own_id: bool
    """True if the caller chose the id, so that the job may be known already."""
    has_own_reply: bool
    """True if the caller chose the reply stream."""
    payload: bytes = field(repr=False)
    fields: dict[str, str] = field(repr=False)

    def entry(self, reply: str) -> list[str | bytes]:
        """Returns the fields of the entry, names and values in turn."""
        fields = self.fields if self.has_own_reply else {**self.fields, "reply": reply}
        return ["job", self.payload, *(word for pair in fields.items() for word in pair)]


class JobTemplate:
    """The options of jobs, checked once for any number of jobs with different inputs."""

    def __init__(self, payload: dict[str, Any], fields: dict[str, str]) -> None:
        self.payload = payload
        self.fields = fields

    @property
    def has_own_id(self) -> bool:
        """True if the caller chose the id."""
        return "id" in self.fields

    def prepare(self, **changes: Any) -> PreparedJob:
        """Returns a job with these fields of the payload, under an id of its own.

        Raises:
            InvalidJobError: A field is not valid.
        """
        if "input" in changes:
            check_plain("input", changes["input"])
        has_own_id = "id" in self.fields
        job_id = self.fields["id"] if has_own_id else uuid.uuid4().hex
        return PreparedJob(
            id=job_id,
            has_own_id=has_own_id,
            has_own_reply="reply" in self.fields,
            payload=encode_payload({**self.payload, **changes}),
            fields={**self.fields, "id": job_id},
        )


def program_template(code: str | None, options: JobOptions) -> JobTemplate:
    """Returns the template of jobs that run a program.

    Raises:
        TypeError: There is no option of that name.
        InvalidJobError: An option is not valid.
    """
    check_names(options)
    if (code is None) == ("argv" not in options):
        problem = "neither code nor argv" if code is None else "both code and argv"
        raise InvalidJobError(f"the job has {problem}", hint="give it one of them")
    given = cast("dict[str, Any]", options)
    gpu = _gpu(given["gpu"]) if "gpu" in given else None
    payload: dict[str, Any] = {
        "image": given.get("image", "python"),
        **_source(code),
        **{name: given[name] for name in _PLAIN_FIELDS if name in given},
        **{name: _texts(name, given[name]) for name in _LISTS if name in given},
        **_data(given),
        **_limits(given),
        **_gpu_field(gpu),
    }
    return JobTemplate(payload, _routing(given, gpu))


def infer_template(
    image: str, options: ModelOptions, *, method: str | None, path: str | None, stream: bool
) -> JobTemplate:
    """Returns the template of jobs that ask a model.

    Raises:
        TypeError: There is no option of that name, or a model has no such option.
        InvalidJobError: An option is not valid.
    """
    check_names(options, MODEL_OPTIONS)
    given = cast("dict[str, Any]", options)
    payload: dict[str, Any] = {"kind": "infer", "image": image}
    optional = {"method": method, "path": path, "stream": stream or None}
    payload |= {name: value for name, value in optional.items() if value is not None}
    payload |= _limits(given)
    return JobTemplate(payload, _routing(given, _gpu(given["gpu"]) if "gpu" in given else None))


def model_defaults(defaults: JobOptions) -> ModelOptions:
    """Returns the defaults of a client that apply to jobs that ask a model."""
    return cast("ModelOptions", {k: v for k, v in defaults.items() if k in MODEL_OPTIONS})


def merged(defaults: JobOptions, options: JobOptions) -> JobOptions:
    """Returns the options of a job with the defaults of its client."""
    both: dict[str, Any] = {**defaults, **options}
    if "argv" in options:
        both.pop("language", None)
    return cast("JobOptions", both)


def _source(code: Any) -> dict[str, Any]:
    if code is not None and not isinstance(code, str):
        raise InvalidJobError(f"the code is {code!r}", hint="use source text")
    return {} if code is None else {"code": code}


def _data(given: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if "env" in given:
        data["env"] = _environment(given["env"])
    if "files" in given:
        data["files"] = read_files(given["files"])
    if "input" in given:
        check_plain("input", given["input"])
        data["input"] = given["input"]
    return data


def _gpu_field(gpu: Gpu | None) -> dict[str, Any]:
    if gpu is None:
        return {}
    field = {"count": count("gpu count", gpu.count)}
    if gpu.memory is not None:
        field["memory"] = size("gpu memory", gpu.memory)
    return {"gpu": field}


def _limits(given: dict[str, Any]) -> dict[str, dict[str, int]]:
    limits: dict[str, int] = {}
    if "timeout" in given:
        limits["timeout_ms"] = milliseconds("timeout", given["timeout"])
    if "cpu_time" in given:
        limits["cpu_ms"] = milliseconds("cpu_time", given["cpu_time"])
    if "cpu" in given:
        limits["cpu_millis"] = milliseconds("cpu", given["cpu"])
    if "processes" in given:
        limits["pids"] = count("processes", given["processes"])
    limits |= {name: size(name, given[name]) for name in _SIZES if name in given}
    limits |= {name: count(name, given[name]) for name in _COUNTS if name in given}
    return {"limits": limits} if limits else {}


def _routing(given: dict[str, Any], gpu: Gpu | None) -> dict[str, str]:
    fields = {name: str(given[name]) for name in _TEXT_FIELDS if name in given}
    tags = _tags(given.get("tags", ()), gpu)
    if tags:
        fields["tags"] = "+".join(tags)
    if "priority" in given:
        fields["priority"] = str(count("priority", given["priority"]))
    for name, field_name in _DURATION_FIELDS.items():
        if name in given:
            fields[field_name] = str(milliseconds(name, given[name]))
    if "keep" in given:
        fields["keep_s"] = str(-(-milliseconds("keep", given["keep"]) // 1000))
    if "at" in given:
        fields["at_ms"] = str(_unix_milliseconds(given["at"]))
    if "retries" in given:
        fields |= _retries(given["retries"])
    return fields


def _tags(tags: Any, gpu: Gpu | None) -> list[str]:
    words = tags.replace(",", "+").split("+") if isinstance(tags, str) else _texts("tags", tags)
    found = [word for word in words if word]
    for extra in ("gpu", gpu.model) if gpu else ():
        if extra and extra not in found:
            found.append(extra)
    return found


def _gpu(found: Any) -> Gpu:
    if isinstance(found, Gpu):
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return Gpu(found)
    if isinstance(found, str):
        model, _, number = found.partition(":")
        if not number or number.isdecimal():
            return Gpu(int(number or 1), model=model.lower())
    raise InvalidJobError(f"gpu {found!r} is not valid", hint='use 1, "h100", "h100:2" or Gpu(…)')


def _retries(found: Any) -> dict[str, str]:
    retries = found
    if isinstance(found, int) and not isinstance(found, bool):
        retries = Retries(attempts=found + 1)
    if not isinstance(retries, Retries):
        raise InvalidJobError(f"retries {found!r} is not valid", hint="use a number or Retries(…)")
    allowed = [str(outcome) for outcome in PROGRAM_OUTCOMES]
    on = allowed if retries.on is None else [str(outcome) for outcome in retries.on]
    for outcome in on:
        if outcome not in allowed:
            raise InvalidJobError(
                f"the outcome {outcome!r} cannot be retried", hint=f"use {', '.join(allowed)}"
            )
    return {
        "retry_on": ",".join(on),
        "max_attempts": str(count("attempts", retries.attempts)),
        "backoff_ms": str(milliseconds("backoff", retries.backoff)),
    }


def _unix_milliseconds(moment: Any) -> int:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidJobError(
            f"at {moment!r} is no time with a time zone", hint="use datetime(…, tzinfo=UTC)"
        )
    return max(0, round(moment.timestamp() * 1000))


def _texts(name: str, found: Any) -> list[str]:
    if isinstance(found, str | bytes | Mapping) or not hasattr(found, "__iter__"):
        raise InvalidJobError(f"{name} {found!r} is no list of text")
    texts = list(cast("Sequence[Any]", found))
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidJobError(f"{name}[{index}] {text!r} is no text")
    return texts


def _environment(found: Any) -> dict[str, str]:
    if not isinstance(found, Mapping):
        raise InvalidJobError(f"env {found!r} is no map of text")
    environment = dict(cast("Mapping[Any, Any]", found))
    for name, value in environment.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidJobError(f"env[{name!r}] {value!r} is no text")
    return environment
