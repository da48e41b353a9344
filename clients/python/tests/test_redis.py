"""Redis goes away, comes back, refuses: what callers see of it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
import uuid

import pytest
import redis

import sandhog


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A Redis of the test's own that can be stopped."""

    def __init__(self, folder) -> None:
        self.port, self.folder = free_port(), folder
        self.url = f"redis://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        words = ["--port", str(self.port), "--dir", str(self.folder), "--appendonly", "yes"]
        words += ["--maxmemory-policy", "noeviction", "--proto-max-bulk-len", "64mb"]
        self.process = subprocess.Popen(
            ["redis-server", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with redis.Redis.from_url(self.url) as probe:
            for _ in range(1000):
                try:
                    probe.ping()
                    return
                except redis.ConnectionError:
                    time.sleep(0.01)
        pytest.fail("redis-server does not answer")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


def publish(url: str, namespace: str, job_id: str) -> None:
    """Publishes a result as a worker does, to the list and to the reply stream."""
    with redis.Redis.from_url(url) as connection:
        prefix = f"sandhog:{{{namespace}}}:"
        jobs = {fields[b"id"].decode(): fields for _, fields in connection.xrange(f"{prefix}jobs")}
        result = b'{"id":"%s","outcome":"succeeded","value":7}' % job_id.encode()
        connection.rpush(f"{prefix}result:{job_id}", result)
        reply = jobs[job_id][b"reply"].decode()
        entry = {"id": job_id, "outcome": "succeeded", "result": result}
        connection.xadd(f"{prefix}reply:{reply}", entry)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:/no/such.sock"])
def test_a_redis_that_is_not_there_is_named_at_once(url):
    with pytest.raises(sandhog.RedisUnavailableError) as caught:
        sandhog.Sandhog(url).run("1")
    assert f"cannot reach Redis at {url}: " in str(caught.value)
    assert "SANDHOG_REDIS_URL" in str(caught.value)
    assert isinstance(caught.value, ConnectionError)


def test_a_redis_that_goes_away_is_named_to_those_who_wait(server):
    with sandhog.Sandhog(server.url, outage_timeout=1) as client:
        job = client.submit("1")
        stopper = threading.Timer(0.5, server.stop)
        stopper.start()
        for _ in range(2):
            with pytest.raises(sandhog.RedisUnavailableError, match=server.url) as caught:
                job.wait()
            assert caught.value.job_id == job.id
            assert "stays in the queue" in str(caught.value)
        with pytest.raises(sandhog.RedisUnavailableError, match="cannot reach") as caught:
            client.run("1")
        assert caught.value.job_id is None, "this job was not submitted"
        with pytest.raises(sandhog.RedisUnavailableError, match=r"for \d s"):
            client.map("1", range(10))
        stopper.join()


def test_a_wait_survives_a_restart(server):
    with sandhog.Sandhog(server.url) as client:
        job = client.submit("1")
        results = []
        waiter = threading.Thread(target=lambda: results.append(job.wait(60)))
        waiter.start()
        time.sleep(0.3)
        server.stop()
        time.sleep(0.3)
        server.start()
        publish(server.url, "default", job.id)
        waiter.join(60)
        assert results[0].value == 7
        # A submission after a restart works too.
        later = client.submit("1")
        publish(server.url, "default", later.id)
        assert later.wait(60).value == 7


def test_a_server_that_lost_the_reply_stream(server):
    """After the stream begins anew, its ids may be below those that the client has read."""
    with sandhog.Sandhog(server.url) as client:
        for _ in range(2):
            jobs = [client.submit("1") for _ in range(3)]
            for job in jobs:
                publish(server.url, "default", job.id)
            assert [job.wait(60).value for job in jobs] == [7, 7, 7]
            with redis.Redis.from_url(server.url) as connection:
                connection.flushall()


def acl(server: Server, line: str) -> str:
    name, password = f"u{uuid.uuid4().hex[:6]}", "pass"
    with redis.Redis.from_url(server.url) as connection:
        words = line.replace("default", "acl").split()
        connection.execute_command("ACL", "SETUSER", name, "on", f">{password}", *words)
    return server.url.replace("://", f"://{name}:{password}@")


APPLICATION = (
    "resetkeys resetchannels -@all +xadd +exists +lrange +xread +xrevrange "
    "%W~sandhog:{default}:jobs %R~sandhog:{default}:result:* %R~sandhog:{default}:reply:* "
    "%R~sandhog:{default}:log:*"
)


def test_the_permissions_of_an_application_are_enough(server):
    url = acl(server, APPLICATION)
    with sandhog.Sandhog(url, namespace="acl") as client:
        job = client.submit("1")
        publish(server.url, "acl", job.id)
        assert job.wait(60).value == 7
        # A job of another client is waited for by polling, as BLMOVE is not allowed.
        assert client.job(job.id).wait(60).value == 7
        with pytest.raises(sandhog.ResultTimeoutError):
            client.job("unknown").wait(0.2)
        client.cancel(job.id)


def test_a_missing_permission_is_explained(server):
    url = acl(server, APPLICATION.replace("+xadd", ""))
    with pytest.raises(sandhog.RedisRefusedError, match="xadd") as caught:
        sandhog.Sandhog(url, namespace="acl").run("1")
    assert "permissions" in caught.value.hint
    assert "pass@" not in str(caught.value)


def test_a_wrong_password_is_explained(server):
    url = server.url.replace("://", "://mallory:wrong@")
    with pytest.raises(sandhog.RedisRefusedError, match="username-password"):
        sandhog.Sandhog(url).run("1")


def test_a_full_redis_is_explained(server):
    with redis.Redis.from_url(server.url) as connection:
        connection.config_set("maxmemory", 1)
    with pytest.raises(sandhog.RedisRefusedError, match="maxmemory"):
        sandhog.Sandhog(server.url).run("1")


def test_a_database_and_a_socket(tmp_path):
    path = tmp_path / "r.sock"
    words = ["--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path), "--save", ""]
    process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.01)
        with sandhog.Sandhog(f"unix:{path}?db=3") as client:
            client.submit("1")
        with redis.Redis(unix_socket_path=str(path), db=3) as connection:
            assert connection.xlen("sandhog:{default}:jobs") == 1
    finally:
        process.terminate()
        process.wait()


def test_replicas_must_have_the_job(server, monkeypatch):
    monkeypatch.setenv("SANDHOG_REDIS_WAIT_REPLICAS", "1")
    monkeypatch.setattr("sandhog.queue._WAIT_REPLICAS_MS", 100)
    with pytest.raises(sandhog.RedisUnavailableError, match="0 of 1 replicas"):
        sandhog.Sandhog(server.url).submit("1")


def test_a_job_foreign_to_the_client_is_waited_for_without_polling(server):
    async def main():
        async with sandhog.AsyncSandhog(server.url) as client:
            job = await client.submit("1")
            wait = asyncio.create_task(client.job(job.id).wait(60))
            await asyncio.sleep(0.5)
            with redis.Redis.from_url(server.url) as connection:
                blocked = connection.info("clients")["blocked_clients"]
            publish(server.url, "default", job.id)
            return blocked, (await wait).value

    assert asyncio.run(main()) == (1, 7)


def test_sentinels_name_the_master(server, tmp_path):
    port = free_port()
    file = tmp_path / "sentinel.conf"
    file.write_text(f"port {port}\nsentinel monitor main 127.0.0.1 {server.port} 1\n")
    process = subprocess.Popen(["redis-server", file, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        with sandhog.Sandhog(f"redis+sentinel://127.0.0.1:{port}/main") as client:
            for attempt in range(100):
                try:
                    job = client.submit("1")
                    break
                except sandhog.RedisUnavailableError:
                    time.sleep(0.1)
                    assert attempt < 99
            publish(server.url, "default", job.id)
            assert job.wait(60).value == 7
    finally:
        process.terminate()
        process.wait()


def test_a_cluster(tmp_path):
    port = free_port() % 20_000 + 10_000
    words = ["--port", str(port), "--cluster-enabled", "yes", "--dir", str(tmp_path), "--save", ""]
    process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as connection:
            for _ in range(1000):
                try:
                    connection.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                    break
                except redis.ConnectionError:
                    time.sleep(0.01)
            while "cluster_state:ok" not in str(connection.execute_command("CLUSTER", "INFO")):
                time.sleep(0.05)
        with sandhog.Sandhog(f"redis+cluster://127.0.0.1:{port}") as client:
            job = client.submit("1")
            publish(f"redis://127.0.0.1:{port}", "default", job.id)
            assert job.wait(60).value == 7
            assert client.job(job.id).wait(60).value == 7
    finally:
        process.terminate()
        process.wait()
