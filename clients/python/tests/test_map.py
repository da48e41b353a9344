"""Many jobs with bounded memory."""

from __future__ import annotations

import asyncio
import builtins
import itertools
import subprocess
import sys
import threading
from pathlib import Path

import msgpack
import pytest

import sandhog

MEMORY_LIMIT_MIB = 200
STAND_IN_JOBS = 20_000


def test_values_come_in_the_order_of_the_inputs(client):
    assert client.map("input_data ** 2", range(100), concurrency=16) == [n**2 for n in range(100)]
    assert client.map("input_data", []) == []
    assert client.map("x = 1", [1, 2]) == [None, None]


def test_results_may_come_as_they_arrive(client):
    code = "import time; time.sleep(input_data); input_data"
    results = list(client.imap(code, [1.0, 0.0], ordered=False))
    assert [(result.index, result.value) for result in results] == [(1, 0.0), (0, 1.0)]


def test_a_failure_raises_and_cancels_the_rest(client, space):
    code = "import time\nif input_data == 0: 1 / 0\ntime.sleep(60)"
    with pytest.raises(sandhog.FailedError, match="ZeroDivisionError"):
        client.map(code, range(8), timeout=120, tenant="rest")
    running = f"{space.prefix}tenant:rest"
    assert client.run("1", tenant="rest", wait=60).ok, running


def test_exceptions_may_be_returned(client):
    found = client.map("1 / input_data", [1, 0, 2], return_exceptions=True)
    assert (found[0], type(found[1]), found[2]) == (1.0, sandhog.FailedError, 0.5)


def test_inputs_are_taken_as_there_is_room(client):
    taken = []

    def inputs():
        for n in itertools.count():
            taken.append(n)
            yield n

    results = client.imap("input_data", inputs(), concurrency=8)
    assert [next(results).value for _ in range(3)] == [0, 1, 2]
    results.close()
    assert len(taken) <= 8 + 3


def test_an_error_of_the_inputs_is_raised(client):
    def inputs():
        yield 1
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        client.map("input_data", inputs())
    with pytest.raises(sandhog.InvalidJobError, match="input is a set"):
        client.map("input_data", [1, {2}])


def test_bad_calls_are_refused(client):
    with pytest.raises(ValueError, match="concurrency 0"):
        client.map("1", [1], concurrency=0)
    with pytest.raises(TypeError, match="leave out 'id'"):
        client.map("1", [1], id="mine")


def test_a_full_backlog_delays_the_rest(client, space):
    command = [space.program, "tenant", "set", "small", "--max-queued", "2"]
    subprocess.run(command, env=space.environment(), check=True, capture_output=True)
    values = client.map("input_data", range(40), tenant="small", concurrency=40)
    assert values == list(range(40))


def test_async_map_takes_both_kinds_of_inputs(space):
    async def numbers():
        for n in range(20):
            await asyncio.sleep(0)
            yield n

    async def main():
        async with sandhog.AsyncSandhog(space.url, namespace=space.namespace) as client:
            first = await client.map("input_data", numbers())
            second = [r.index async for r in client.imap("1", range(5), ordered=False)]
            with pytest.raises(sandhog.FailedError):
                await client.map("1 / input_data", [1, 0])
            return first, sorted(second)

    assert asyncio.run(main()) == (list(range(20)), list(range(5)))


def test_a_bar_is_shown_where_tqdm_is(client, capsys):
    pytest.importorskip("tqdm")
    client.map("input_data", range(5), progress=True)
    assert "5/5" in capsys.readouterr().err


def test_without_tqdm_there_is_no_bar(client, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert client.map("input_data", range(3), progress=True) == [0, 1, 2]
    assert capsys.readouterr().err == ""


class StandIn:
    """Answers every job of a namespace at once: `input + 1`. It makes a large map cheap."""

    def __init__(self, space) -> None:
        self.space = space
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join(60)

    def serve(self) -> None:
        server, prefix = self.space.redis, self.space.prefix
        while not self.stopped.is_set():
            entries = server.xrange(f"{prefix}jobs", count=500)
            if not entries:
                self.stopped.wait(0.002)
                continue
            pipeline = server.pipeline(transaction=False)
            for entry_id, fields in entries:
                self.answer(pipeline, prefix, fields)
                pipeline.xdel(f"{prefix}jobs", entry_id)
            pipeline.execute()

    def answer(self, pipeline, prefix, fields) -> None:
        job_id = fields[b"id"].decode()
        value = msgpack.unpackb(fields[b"job"])["input"] + 1
        result = msgpack.packb({"id": job_id, "outcome": "succeeded", "value": value})
        pipeline.rpush(f"{prefix}result:{job_id}", result)
        pipeline.expire(f"{prefix}result:{job_id}", 60)
        reply = {"id": job_id, "outcome": "succeeded", "result": result}
        pipeline.xadd(f"{prefix}reply:{fields[b'reply'].decode()}", reply, maxlen=10_000)


def test_memory_stays_bounded(idle_space):
    script = Path(__file__).parent / "map_memory.py"
    with StandIn(idle_space):
        run = subprocess.run(
            [sys.executable, script, str(STAND_IN_JOBS)],
            env=idle_space.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    peak = builtins.float(run.stdout.split("peak_mib=")[1].split()[0])
    assert peak < MEMORY_LIMIT_MIB, run.stdout
