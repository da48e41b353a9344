"""Every outcome of a real worker has its exception, with the message of the result."""

from __future__ import annotations

import pytest

import sandhog

FORK = "import subprocess as s; [s.Popen(['sleep', '9']) for _ in range(99)]"
CASES = {
    "failed": ("1 / 0", {}, sandhog.FailedError, "ZeroDivisionError: division by zero"),
    "exit code": ("exit(3)", {}, sandhog.FailedError, "exited with code 3"),
    "signal": (
        "import os; os.kill(os.getpid(), 11)",
        {},
        sandhog.FailedError,
        "ended by SIGSEGV",
    ),
    "no such program": (None, {"argv": ["nothing-here"]}, sandhog.FailedError, "nothing-here"),
    "timed out": ("while True: pass", {"timeout": 0.5}, sandhog.TimedOutError, "timed out after"),
    "cpu limit": ("while True: pass", {"cpu_time": 0.2}, sandhog.CpuLimitError, "CPU time"),
    "out of memory": (
        "bytearray(2**30)",
        {"memory": "64MiB"},
        sandhog.OutOfMemoryError,
        "limit of 64.0 MiB",
    ),
    "process limit": (FORK, {"processes": 8}, sandhog.ProcessLimitError, "process or thread"),
    "scratch limit": (
        "open('f', 'wb').write(bytes(2**24))",
        {"scratch": "1MiB"},
        sandhog.ScratchLimitError,
        "scratch space was full",
    ),
    "output limit": (
        "while True: print('x' * 999)",
        {"output_total": "1MiB"},
        sandhog.OutputLimitError,
        "too much output",
    ),
    "expired": ("1", {"tags": ["nowhere"], "ttl": 0.1}, sandhog.ExpiredError, "before a worker"),
    "unknown image": ("1", {"image": "pyton"}, sandhog.RejectedError, "image pyton is unknown"),
    "too large": ("1", {"stdin": bytes(2**21)}, sandhog.RejectedError, "payload"),
    "bad limits": ("1", {"memory": 64}, sandhog.RejectedError, "memory"),
    "bad tenant": ("1", {"tenant": "a b"}, sandhog.RejectedError, "a b"),
    "lost": ("1", {"secrets": ["BROKEN"]}, sandhog.LostError, "BROKEN"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_outcome_has_its_exception(case, client):
    code, options, kind, message = CASES[case]
    result = client.run(code, **options)
    with pytest.raises(kind) as caught:
        result.raise_for_outcome()
    assert type(caught.value) is kind
    assert message in str(caught.value)
    if result.error:
        assert result.error.message in str(caught.value)
        assert caught.value.code == result.error.code


def test_codes_of_rejections(client):
    codes = {
        case: client.run(CASES[case][0], **CASES[case][1]).error.code
        for case in ("unknown image", "too large", "bad limits", "bad tenant")
    }
    assert codes == {
        "unknown image": "unknown_image",
        "too large": "payload_too_large",
        "bad limits": "bad_limits",
        "bad tenant": "bad_id",
    }


def test_a_cancelled_job_has_its_exception(client):
    job = client.submit("while True: pass")
    job.cancel()
    with pytest.raises(sandhog.CancelledError, match="cancelled"):
        job.wait().raise_for_outcome()


def test_a_payload_that_no_operator_allows_is_not_sent(client, space):
    before = space.redis.info("stats")["total_net_input_bytes"]
    with pytest.raises(sandhog.JobTooLargeError, match="16,777,216"):
        client.run("1", stdin=bytes(2**25))
    assert space.redis.info("stats")["total_net_input_bytes"] - before < 2**24


def test_a_missing_module_is_explained(client):
    error = client.run("import not_there").text()
    assert "ModuleNotFoundError" in error
    assert "hint: " in error
