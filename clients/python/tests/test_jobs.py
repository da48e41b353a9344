"""Running, submitting, following and cancelling jobs with a real worker."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import sandhog


def test_input_output_files_and_environment(client, tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("NAME = 'mine'\n")
    result = client.run(
        "import os, pkg, sys\n"
        "data = open('in.bin', 'rb').read()\n"
        "os.makedirs('out')\n"
        "open('out/copy.bin', 'wb').write(data[::-1])\n"
        "sys.stdout.buffer.write(sys.stdin.buffer.read())\n"
        "[pkg.NAME, os.environ['A'], sys.argv[1:], input_data, os.environ['API_KEY']]\n",
        files={"in.bin": b"\x00\xff", "pkg": tmp_path / "pkg"},
        stdin=b"\xfe",
        env={"A": "b"},
        args=["x", "y"],
        input={"deep": [1, None, 2.5]},
        secrets=["API_KEY"],
        fetch=["out/**"],
    ).raise_for_outcome()
    assert result.files == {"out/copy.bin": b"\xff\x00"}
    assert result.stdout_bytes == b"\xfe"
    assert result.value == ["mine", "b", ["x", "y"], {"deep": [1, None, 2.5]}, "a secret"]
    assert result.worker
    assert result.image == "python"
    assert result.attempts == 1


def test_other_programs(client):
    result = client.run(
        argv=["sh", "-c", "echo $1; cat $SANDHOG_INPUT_FILE", "-", "one"], input=[1]
    )
    assert result.stdout == "one\n[1]"
    assert client.run("echo bash $1", language="bash", args=["runs"]).stdout == "bash runs\n"


def test_a_known_id_is_not_run_again(client):
    first = client.run("import time; time.time_ns()", id="once")
    again = client.run("import time; time.time_ns()", id="once")
    assert first == again
    assert first.id == "once"


def test_a_job_that_was_turned_away_is_decided_anew(client):
    holder = client.submit("while True: pass", unique="key")
    turned_away = client.run("1", unique="key", id="later")
    assert turned_away.error.code == "duplicate"
    holder.cancel()
    holder.wait()
    assert client.run("1", unique="key", id="later").ok


def test_a_reply_stream_of_ones_own(client, space):
    result = client.run("6 * 7", reply="mine")
    assert result.value == 42
    entries = space.redis.xrange(f"{space.prefix}reply:mine")
    assert [fields[b"id"].decode() for _, fields in entries] == [result.id]


def test_retries(client):
    assert client.run("exit(1)", retries=sandhog.Retries(attempts=3, backoff=0)).attempts == 3


def test_many_threads_share_one_client(client):
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda n: client.run(f"{n}").value, range(64)))
    assert results == list(range(64))


def test_a_forked_process_gets_its_own_connection(client):
    assert client.run("1").value == 1
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=lambda: answers.put(client.run("2").value))
    child.start()
    assert answers.get(timeout=60) == 2
    child.join()
    assert client.run("3").value == 3


def test_one_connection_waits_for_many_jobs_without_polling(space):
    gate = f"{space.prefix}gate"
    with sandhog.Sandhog(space.url, namespace=space.namespace) as client:
        client.run("1")
        jobs = [client.submit("input_data", input=n, delay=3) for n in range(50)]
        with ThreadPoolExecutor(50) as pool:
            waits = [pool.submit(job.wait) for job in jobs]
            time.sleep(1)
            own = [c for c in space.redis.client_list() if c["cmd"] == "xread"]
            before = space.redis.info("commandstats").get("cmdstat_lrange", {"calls": 0})["calls"]
            values = [wait.result().value for wait in waits]
            after = space.redis.info("commandstats")["cmdstat_lrange"]["calls"]
    assert values == list(range(50))
    assert own, "a connection waits in XREAD"
    # Other tests share the server. Polling would take thousands of reads.
    assert after - before < 500
    assert not space.redis.exists(gate)


def test_results_that_left_the_reply_stream_are_found(client, space):
    """The stream loses its entries while the client is not reading them."""
    with client.submit("while True: pass") as blocker:
        waiting = threading.Thread(target=blocker.wait)
        waiting.start()
        jobs = [client.submit("input_data", input=n) for n in range(20)]
        while space.redis.exists(*(f"{space.prefix}result:{job.id}" for job in jobs)) < 20:
            time.sleep(0.05)
        for key in space.redis.scan_iter(match=f"{space.prefix}reply:client:*"):
            space.redis.delete(key)
        assert [job.wait(60).value for job in jobs] == list(range(20))
        blocker.cancel()
        waiting.join()


def test_a_large_result_comes_whole(client):
    code = "print('x' * 5_000_000); open('f', 'wb').write(bytes(3_000_000)); 'y' * 800_000"
    result = client.run(code, output="8MiB", fetch=["f"]).raise_for_outcome()
    assert (len(result.stdout), len(result.files["f"]), len(result.value)) == (
        5_000_001,
        3_000_000,
        800_000,
    )


def test_the_value_null_and_no_value(client):
    result = client.run("def main():\n    return None\n")
    assert (result.has_value, result.value) == (True, None)
    assert not client.run("x = 1").has_value


def test_output_comes_while_the_program_runs(client):
    code = "import time\nfor n in range(3):\n    print(n, flush=True); time.sleep(0.3)\n"
    seen = []
    with client.submit(code) as job:
        seen.extend((piece.text, job.result() is None) for piece in job.output())
    assert [text for text, _ in seen] == ["0\n", "1\n", "2\n"]
    assert seen[0][1], "the first piece comes before the end"


def test_output_of_two_streams_and_split_characters(client):
    code = (
        "import sys, time\n"
        "for byte in '€'.encode():\n"
        "    sys.stdout.buffer.write(bytes([byte])); sys.stdout.flush(); time.sleep(0.1)\n"
        "print('bad', file=sys.stderr)\n"
    )
    pieces = []
    result = client.run(code, on_output=pieces.append)
    texts = {s: "".join(p.text for p in pieces if p.stream == s) for s in ("stdout", "stderr")}
    assert texts == {"stdout": "€", "stderr": "bad\n"}
    assert result.ok


def test_output_of_a_job_that_printed_nothing(client):
    assert list(client.submit("x = 1").output()) == []


def test_output_whose_log_was_removed_comes_from_the_result(client, space):
    job = client.submit("print('hello')")
    job.wait()
    space.redis.delete(f"{space.prefix}log:{job.id}")
    assert "".join(piece.text for piece in job.output()) == "hello\n"


def test_a_callback_that_fails_cancels_the_job(client):
    def fail(piece):
        raise KeyError(piece.text)

    with pytest.raises(KeyError, match="hello"):
        client.run("print('hello', flush=True)\nwhile True: pass", on_output=fail, id="callback")
    assert client.job("callback").wait(60).outcome is sandhog.Outcome.CANCELLED


def test_a_wait_that_ends_leaves_the_job(client):
    with pytest.raises(sandhog.ResultTimeoutError, match="job patience has no result after"):
        client.run("import time; time.sleep(1); 7", wait=0.1, id="patience")
    assert client.job("patience").wait(60).value == 7
    with pytest.raises(sandhog.ResultTimeoutError):
        client.run("import time; time.sleep(1)", wait=0.1, on_output=print)


def test_leaving_the_block_cancels_the_job(client):
    with client.submit("while True: pass") as job:
        pass
    assert job.wait(60).outcome is sandhog.Outcome.CANCELLED


def test_ctrl_c_cancels_the_job(space):
    code = (
        "import sandhog\n"
        "print('started', flush=True)\n"
        "sandhog.Sandhog().run('while True: pass', id='interrupted')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=space.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "started\n"
    entry = f"{space.prefix}job:interrupted"
    while not space.redis.keys(f"{space.prefix}*interrupted*"):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr, (entry, stderr)
    with sandhog.Sandhog(space.url, namespace=space.namespace) as client:
        assert client.job("interrupted").wait(60).outcome is sandhog.Outcome.CANCELLED


def test_a_cancelled_task_cancels_its_job(space):
    async def main():
        async with sandhog.AsyncSandhog(space.url, namespace=space.namespace) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.run("while True: pass", id="task"), 1)
            return await client.job("task").wait(60)

    assert asyncio.run(main()).outcome is sandhog.Outcome.CANCELLED


def test_many_tasks_share_one_client(space):
    async def main():
        async with sandhog.AsyncSandhog(space.url, namespace=space.namespace) as client:
            results = await asyncio.gather(*(client.run(f"{n}") for n in range(64)))
            return [result.value for result in results]

    assert asyncio.run(main()) == list(range(64))


def test_defaults_of_the_client(space):
    with sandhog.Sandhog(space.url, namespace=space.namespace, timeout=0.3) as client:
        assert client.run("while True: pass").outcome is sandhog.Outcome.TIMED_OUT
        assert client.run("import time; time.sleep(0.5)", timeout=20).ok


def test_a_job_without_a_worker_is_explained(idle_space, caplog):
    with sandhog.Sandhog(idle_space.url, namespace=idle_space.namespace) as client:
        job = client.submit("1", reply="mine")
        assert job.id
        with pytest.raises(sandhog.ResultTimeoutError):
            client.run("1", wait=6)
    assert f"does a worker serve the namespace {idle_space.namespace}" in caplog.text


def test_a_client_of_another_thread_is_refused_inside_its_loop(client):
    with pytest.raises(RuntimeError, match="inside its own event loop"):
        client._enter()[0].call(nested(client))


async def nested(client):
    return client.run("1")
