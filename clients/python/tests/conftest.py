"""Fixtures: a worker of the tests' own, and clients of its namespace.

The suite needs a Redis (`SANDHOG_TEST_REDIS_URL`, else the server on this machine), the program
`sandhog` (`SANDHOG_TEST_PROGRAM`, else `target/debug/sandhog` of the checkout), a container engine
and the images `python` and `datascience`. Tests in files that begin with `test_unit_` need none.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

import sandhog

PACKAGE = Path(__file__).parents[1]
CHECKOUT = PACKAGE.parents[1]
START_TIMEOUT_S = 120


@dataclass(frozen=True)
class Space:
    """A namespace of the tests' own."""

    url: str
    namespace: str
    program: Path
    redis: redis.Redis

    @property
    def prefix(self) -> str:
        return f"sandhog:{{{self.namespace}}}:"

    def environment(self) -> dict[str, str]:
        """Variables for programs that use the namespace and the package of this checkout."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SANDHOG_")}
        own = {"SANDHOG_REDIS_URL": self.url, "SANDHOG_NAMESPACE": self.namespace}
        return {**kept, **own, "PYTHONPATH": str(PACKAGE / "src")}


@pytest.fixture(scope="session")
def redis_url() -> str:
    return os.environ.get("SANDHOG_TEST_REDIS_URL") or "redis://127.0.0.1:6379"


@pytest.fixture(scope="session")
def program() -> Path:
    named = os.environ.get("SANDHOG_TEST_PROGRAM")
    path = Path(named) if named else CHECKOUT / "target/debug/sandhog"
    if not path.exists():
        pytest.fail(f"{path} does not exist: run scripts/build dev, or set SANDHOG_TEST_PROGRAM")
    return path


def remove_keys(server: redis.Redis, prefix: str) -> None:
    for key in server.scan_iter(match=f"{prefix}*", count=1000):
        server.delete(key)


@pytest.fixture(scope="session")
def space(redis_url: str, program: Path, tmp_path_factory):
    """A namespace with a running worker, for the whole suite."""
    namespace = f"py-{uuid.uuid4().hex[:12]}"
    server = redis.Redis.from_url(redis_url)
    space = Space(redis_url, namespace, program, server)
    secrets = tmp_path_factory.mktemp("secrets")
    (secrets / "API_KEY").write_text("a secret\n")
    # The policy gives this secret, but its value cannot be read: a fault of the worker.
    (secrets / "BROKEN").mkdir()
    (secrets / "policy.toml").write_text(
        '[[allow]]\nsecrets = ["API_KEY", "BROKEN"]\ntenants = ["*"]\nimages = ["*"]\n'
    )
    environment = {
        **space.environment(),
        "SANDHOG_WORKER_HTTP": "",
        "SANDHOG_WORKER_SECRETS": str(secrets),
        "SANDHOG_WORKER_MAX_LOST": "1",
        "SANDHOG_POOL_REUSE": "any",
        "SANDHOG_STATE_DIR": str(tmp_path_factory.mktemp("state")),
    }
    log = tmp_path_factory.mktemp("worker") / "log"
    with log.open("wb") as file:
        worker = subprocess.Popen(
            [program, "worker", "--slots", "4"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        wait_until_it_serves(worker, log)
        yield space
    finally:
        worker.terminate()
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        remove_keys(server, space.prefix)
        server.close()


def wait_until_it_serves(worker: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while b"worker serving" not in log.read_bytes():
        if worker.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the worker does not serve:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


@pytest.fixture
def environment(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points clients without arguments at the tests' namespace, and the PATH at the program."""
    for name in list(os.environ):
        if name.startswith("SANDHOG_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SANDHOG_REDIS_URL", space.url)
    monkeypatch.setenv("SANDHOG_NAMESPACE", space.namespace)
    monkeypatch.setenv("PATH", f"{space.program.parent}:{os.environ['PATH']}")


@pytest.fixture
def client(space: Space):
    with sandhog.Sandhog(space.url, namespace=space.namespace) as client:
        yield client


@pytest.fixture
def idle_space(redis_url: str, program: Path):
    """A namespace without a worker."""
    namespace = f"py-{uuid.uuid4().hex[:12]}"
    server = redis.Redis.from_url(redis_url)
    space = Space(redis_url, namespace, program, server)
    yield space
    remove_keys(server, space.prefix)
    server.close()
