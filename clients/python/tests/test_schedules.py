"""Schedules through the program `sandhog`."""

from __future__ import annotations

import pytest

import sandhog


def test_a_schedule_submits_its_job(client, environment):
    schedule = client.schedules.add(
        "every",
        "* * * * * *",
        "open('in.bin', 'rb').read().hex()",
        files={"in.bin": b"\xff"},
        tenant="acme",
        keep=600,
        ttl=60,
        retries=1,
        tags="cpu",
    )
    try:
        assert (schedule.state, schedule.cron, schedule.fired) == ("active", "* * * * * *", 0)
        while (schedule := client.schedules.get("every")).last_id is None:
            pass
        assert client.job(schedule.last_id).wait(60).value == "ff"
        with pytest.raises(sandhog.ProgramError, match="already exists"):
            client.schedules.add("every", "@daily", "1")
        assert client.schedules.add("every", "@daily", "1", replace=True).cron == "@daily"
    finally:
        client.schedules.remove("every")


def test_a_bad_expression_is_explained(client, environment):
    with pytest.raises(sandhog.ProgramError, match="61") as caught:
        client.schedules.add("bad", "61 * * * *", "1")
    assert caught.value.exit_code == 64


def test_what_a_schedule_sets_itself_is_refused(client, environment):
    with pytest.raises(sandhog.InvalidJobError, match="no option 'id'"):
        client.schedules.add("bad", "@daily", "1", id="mine")


def test_a_missing_program_is_explained(client, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(sandhog.ProgramError, match="not in the PATH"):
        client.schedules.list()
