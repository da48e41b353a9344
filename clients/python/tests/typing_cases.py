"""Types that callers see. pyright checks this file; nothing runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

import sandhog


@sandhog.function
def plain(radius: float, *, scale: int = 1) -> float:
    return radius * scale


@sandhog.function(image="datascience", timeout=20)
def with_options(words: list[str]) -> dict[str, int]:
    return {word: len(word) for word in words}


@sandhog.model(image="shout", max_batch=4)
class Shout:
    def shout(self, text: str) -> str:
        return text.upper()


def functions() -> None:
    assert_type(plain(1.0, scale=2), float)
    assert_type(plain.remote(1.0), float)
    assert_type(plain.local(1.0), float)
    assert_type(plain.run(1.0), sandhog.Result)
    assert_type(plain.spawn(1.0), sandhog.Job)
    assert_type(with_options(["a"]), dict[str, int])
    assert_type(with_options.map([["a"]]), Iterator[dict[str, int]])
    assert_type(Shout.remote().shout("a"), str)
    plain("text")  # pyright: ignore[reportArgumentType]
    sandhog.function(timout=1)  # pyright: ignore[reportCallIssue]


def clients(client: sandhog.Sandhog) -> None:
    result = client.run("1", timeout=1, memory="64MiB", files={"a": b""}, gpu=sandhog.Gpu(1))
    assert_type(result.outcome, sandhog.Outcome)
    assert_type(result.stdout, str)
    assert_type(result.raise_for_outcome(), sandhog.Result)
    assert_type(client.submit("1").wait(), sandhog.Result)
    assert_type(client.imap("1", [1]), Iterator[sandhog.Result])
    assert_type(client.map("1", [1]), list[Any])
    client.run("1", memory=None)  # pyright: ignore[reportArgumentType]
    client.infer("embed", "a", memory=1)  # pyright: ignore[reportCallIssue]


async def async_clients(client: sandhog.AsyncSandhog) -> None:
    assert_type(await client.run("1", id="a"), sandhog.Result)
    assert_type(await client.submit("1"), sandhog.AsyncJob)
    assert_type(await plain.aremote(client, 1.0), float)
    async for result in client.imap("1", [1], ordered=False):
        assert_type(result, sandhog.Result)
