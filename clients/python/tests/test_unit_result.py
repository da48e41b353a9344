"""Results of the wire contract as objects, exceptions and text."""

from __future__ import annotations

import pickle

import pytest

import sandhog
from sandhog.errors import ERROR_OF_OUTCOME

ERROR = {"code": "unknown_image", "message": "no image pyton"}


def result(outcome="succeeded", **fields):
    return sandhog.Result.from_wire({"id": "j", "outcome": outcome, **fields})


def test_every_outcome_without_success_has_one_exception():
    outcomes = set(sandhog.Outcome) - {sandhog.Outcome.SUCCEEDED}
    assert set(ERROR_OF_OUTCOME) == outcomes
    assert len(set(ERROR_OF_OUTCOME.values())) == len(outcomes)
    for outcome in outcomes:
        with pytest.raises(ERROR_OF_OUTCOME[outcome]) as caught:
            result(outcome, error=ERROR).raise_for_outcome()
        assert caught.value.result.outcome is outcome
        assert type(caught.value).__module__ == "sandhog"


@pytest.mark.parametrize("outcome", ["rejected", "lost", "expired"])
def test_the_message_of_the_result_is_in_the_exception(outcome):
    with pytest.raises(sandhog.OutcomeError, match="no image pyton") as caught:
        result(outcome, error=ERROR).raise_for_outcome()
    assert caught.value.code == "unknown_image"


ERRORS = [
    sandhog.FailedError(result("failed", exit_code=3)),
    sandhog.OutOfMemoryError(result("out_of_memory")),
    sandhog.NoValueError("no value", result(), hint="return one"),
    sandhog.JobTooLargeError(2, 1),
    sandhog.RedisUnavailableError("away", "redis://h", hint="start it", job_id="j"),
    sandhog.ResultTimeoutError("j", 1.5),
    sandhog.ProgramError("failed", exit_code=64),
    sandhog.ConfigurationError("bad"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_survives_pickling(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


def test_fields_are_decoded():
    found = result(
        stdout={"base64": "/wo="},
        stderr="text",
        truncated={"stdout": True, "stderr": False},
        files={"a": "text", "b": {"base64": "AAE="}, "c": {"later": 1}},
        displays=[{"image/png": "iVBORw==", "text/plain": "<Figure>", "application/json": [1]}],
        usage={"wall_ms": 5, "tokens": {"prompt": 1, "completion": 2}},
        finished_at_ms=1_000,
        unknown_field=1,
    )
    assert (found.stdout_bytes, found.stdout, found.stderr) == (b"\xff\n", "\ufffd\n", "text")
    assert found.truncated == (True, False)
    assert found.files == {"a": b"text", "b": b"\x00\x01"}
    assert found.not_fetched == {"c": "unknown_form"}
    assert found.displays[0].png == b"\x89PNG"
    assert found.displays[0].data["application/json"] == [1]
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (1, 2)
    assert found.finished_at.isoformat() == "1970-01-01T00:00:01+00:00"
    assert found.raw["unknown_field"] == 1


def test_null_is_a_value():
    assert result(value=None).unwrap() is None
    with pytest.raises(sandhog.NoValueError, match="has no value"):
        result().unwrap()


def test_an_unknown_outcome_names_itself():
    with pytest.raises(sandhog.ProtocolError, match="'frozen'"):
        result("frozen")


def test_the_traceback_is_shown_once():
    traceback = 'Traceback:\n  File "main.py"\nValueError: bad'
    exception = {"type": "ValueError", "message": "bad", "traceback": traceback}
    text = result(
        "failed", exception=exception, stderr=f"warned\n{traceback}\nnote: no network\n"
    ).text()
    assert text.count("ValueError: bad") == 2  # the summary, and the traceback
    assert "stderr:\nwarned" in text
    assert "hint: no network" in text


def test_long_output_keeps_its_ends():
    text = result(stdout="a" * 5000 + "the end").text(limit=100)
    assert text.endswith("the end")
    assert "characters left out" in text
    assert len(text) < 250


def test_what_was_cut_off_is_named():
    text = result(
        truncated={"stdout": True, "stderr": False},
        not_fetched={"big.bin": "too_large"},
        displays_dropped=2,
    ).text()
    for part in ("stdout was longer", "big.bin (too_large)", "dropped: 2"):
        assert part in text
