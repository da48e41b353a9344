"""Options of a job become the payload and the fields of the wire contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgpack
import pytest

import sandhog
from sandhog.job import infer_template, merged, model_defaults, program_template


def payload_of(template, **changes):
    return msgpack.unpackb(template.prepare(**changes).payload)


def test_a_plain_job():
    job = program_template("print(1)", {}).prepare()
    assert msgpack.unpackb(job.payload) == {"image": "python", "code": "print(1)"}
    assert job.fields == {"id": job.id}
    assert job.entry("mine")[-2:] == ["reply", "mine"]


def test_every_option_has_its_field(tmp_path):
    (tmp_path / "pkg/__pycache__").mkdir(parents=True)
    (tmp_path / "pkg/__pycache__/x.pyc").write_bytes(b"")
    (tmp_path / "pkg/a.py").write_text("A = 1\n")
    template = program_template(
        "print(1)",
        {
            "image": "datascience",
            "args": ["a"],
            "stdin": b"\xff",
            "env": {"A": "b"},
            "secrets": ["KEY"],
            "input": {"a": (1, 2)},
            "files": {"t.txt": "text", "b.bin": b"\x00", "pkg": tmp_path / "pkg"},
            "fetch": ["*.png"],
            "gpu": "h100:2",
            "infer": ["embed"],
            "timeout": 1.5,
            "cpu_time": timedelta(seconds=2),
            "cpu": 0.5,
            "memory": "64MiB",
            "processes": 8,
            "output": 10,
            "tags": ["fast"],
            "tenant": "acme",
            "priority": 9,
            "delay": 1,
            "at": datetime(2026, 12, 1, tzinfo=UTC),
            "ttl": 2,
            "retries": 2,
            "unique": "key",
            "unique_ttl": 3,
            "keep": 0.5,
            "id": "mine",
            "traceparent": "00-aa-bb-01",
        },
    )
    assert payload_of(template) == {
        "image": "datascience",
        "code": "print(1)",
        "args": ["a"],
        "stdin": b"\xff",
        "env": {"A": "b"},
        "secrets": ["KEY"],
        "input": {"a": [1, 2]},
        "files": {"t.txt": "text", "b.bin": b"\x00", "pkg/a.py": b"A = 1\n"},
        "fetch": ["*.png"],
        "gpu": {"count": 2},
        "infer": ["embed"],
        "limits": {
            "timeout_ms": 1500,
            "cpu_ms": 2000,
            "cpu_millis": 500,
            "memory": 64 * 2**20,
            "pids": 8,
            "output": 10,
        },
    }
    outcomes = "failed,timed_out,cpu_limit,out_of_memory,process_limit,scratch_limit,output_limit"
    assert template.prepare().fields == {
        "id": "mine",
        "tenant": "acme",
        "unique": "key",
        "traceparent": "00-aa-bb-01",
        "tags": "fast+gpu+h100",
        "priority": "9",
        "delay_ms": "1000",
        "ttl_ms": "2000",
        "unique_ttl_ms": "3000",
        "keep_s": "1",
        "at_ms": "1796083200000",
        "retry_on": outcomes,
        "max_attempts": "3",
        "backoff_ms": "1000",
    }


def test_a_question_to_a_model():
    template = infer_template("embed", {"timeout": 1}, method="count", path=None, stream=True)
    assert payload_of(template, input="text") == {
        "kind": "infer",
        "image": "embed",
        "method": "count",
        "stream": True,
        "limits": {"timeout_ms": 1000},
        "input": "text",
    }
    with pytest.raises(TypeError, match="asks a model has no option 'memory'"):
        infer_template("embed", {"memory": 1}, method=None, path=None, stream=False)


def test_defaults_of_a_client():
    defaults: sandhog.JobOptions = {"image": "node", "timeout": 5, "tenant": "acme"}
    assert merged(defaults, {"timeout": 1}) == {"image": "node", "timeout": 1, "tenant": "acme"}
    assert model_defaults(defaults) == {"timeout": 5, "tenant": "acme"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": -1}, "timeout -1 is no duration"),
        ({"timeout": float("nan")}, "timeout nan is no duration"),
        ({"timeout": True}, "timeout True is no duration"),
        ({"memory": "64 parsecs"}, "memory '64 parsecs' is no size"),
        ({"processes": "8"}, "processes '8' is no number"),
        ({"args": "text"}, "args 'text' is no list of text"),
        ({"args": ["a", 1]}, r"args\[1\] 1 is no text"),
        ({"env": {"A": 1}}, r"env\['A'\] 1 is no text"),
        ({"files": {"a": 1}}, r"files\['a'\] has the type int"),
        ({"gpu": "h100:x"}, "gpu 'h100:x' is not valid"),
        ({"retries": sandhog.Retries(on=["lost"])}, "the outcome 'lost' cannot be retried"),
        ({"at": datetime(2026, 1, 1)}, "is no time with a time zone"),  # noqa: DTZ001
        ({"input": {"a": [1, {2}]}}, r"input\['a'\]\[1\] is a set"),
        ({"input": {1: 2}}, "input has the key 1, which is no str"),
        ({"input": 2**64}, "beyond 64 bits"),
        ({"input": float("inf")}, "input is inf"),
        ({"argv": ["true"]}, "both code and argv"),
    ],
)
def test_a_bad_option_is_refused_with_its_value(options, message):
    with pytest.raises(sandhog.InvalidJobError, match=message):
        program_template("print(1)", options)


@pytest.mark.parametrize(
    ("name", "message"),
    [("timout", "did you mean 'timeout'"), ("gpus", "'gpu'"), ("idempotency_key", "'id'")],
)
def test_an_unknown_option_is_refused_with_the_nearest(name, message):
    with pytest.raises(TypeError, match=message):
        program_template("print(1)", {name: 1})


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(sandhog.InvalidJobError, match="cannot be read"):
        program_template("1", {"files": {"a": tmp_path / "missing"}})


def test_links_that_lead_out_of_a_folder_are_left_out(tmp_path):
    (tmp_path / "secret").write_text("s")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/link").symlink_to(tmp_path / "secret")
    (tmp_path / "pkg/own").write_text("o")
    template = program_template("1", {"files": {"pkg": tmp_path / "pkg"}})
    assert list(payload_of(template)["files"]) == ["pkg/own"]


def test_neither_code_nor_argv_is_refused():
    with pytest.raises(sandhog.InvalidJobError, match="neither code nor argv"):
        program_template(None, {})
