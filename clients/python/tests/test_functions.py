"""Python functions and classes in sandboxes."""

from __future__ import annotations

import asyncio
import importlib
import sys
import textwrap

import pytest

import sandhog

HEAD = "import json\nimport math as m\nfrom collections import Counter\nimport sandhog\n"


@pytest.fixture
def module(tmp_path, monkeypatch, client):
    """Imports source text as a module; its decorated functions use the tests' client."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sandhog.default._CLIENTS", [client])
    names = []

    def load(text: str):
        name = f"module_{len(names)}_{abs(hash(text))}"
        names.append(name)
        (tmp_path / f"{name}.py").write_text(HEAD + textwrap.dedent(text))
        return importlib.import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)


def test_a_function_brings_all_that_it_uses(module):
    found = module("""
        LIMIT = {"a": [1, 2.5, None]}

        def helper(n: "Unknown") -> int:
            return inner(n) + 1

        @sandhog.function
        def inner(n):
            return m.factorial(n)

        @sandhog.function(timeout=20, tenant="acme")
        def outer(n: int, *rest: Counter[str], scale: int = 2) -> dict:
            local: Unknown = [helper(n) for _ in rest]
            return {"local": local, "limit": LIMIT, "count": Counter("aab")["a"] * scale,
                    "text": json.dumps(n)}
    """)
    assert found.outer(3, "x", "y", scale=5) == {
        "local": [7, 7],
        "limit": {"a": [1, 2.5, None]},
        "count": 10,
        "text": "3",
    }
    assert found.outer.__name__ == "outer"
    assert found.inner.local(4) == 24


def test_a_traceback_names_the_line_of_the_file(module):
    found = module("""
        @sandhog.function
        def fail():
            value = 1
            raise ValueError("here")
    """)
    with pytest.raises(sandhog.FailedError, match="ValueError: here") as caught:
        found.fail()
    line = HEAD.count("\n") + 5
    traceback = caught.value.result.exception.traceback
    assert f'{found.__name__}.py", line {line}, in fail' in traceback
    assert 'raise ValueError("here")' in traceback


def test_functions_with_special_names_and_kinds(module):
    found = module("""
        @sandhog.function
        def main(n):
            return n + 1

        @sandhog.function
        async def wait(n):
            import asyncio
            await asyncio.sleep(0)
            return n * 2

        @sandhog.function
        def nothing():
            pass
    """)
    assert (found.main(1), found.wait(2), found.nothing()) == (2, 4, None)


def test_maps_and_spawns(module):
    found = module("""
        @sandhog.function
        def power(base, exponent=2):
            return base ** exponent
    """)
    assert list(found.power.map(range(5))) == [0, 1, 4, 9, 16]
    assert list(found.power.starmap([(2, 3), (3,)])) == [8, 9]
    assert found.power.spawn(7).wait().unwrap() == 49
    assert found.power.run(7).usage.wall_ms >= 0
    assert [type(v) for v in found.power.map([1, "x"], return_exceptions=True)] == [
        int,
        sandhog.FailedError,
    ]


def test_a_function_from_an_event_loop(module, space):
    found = module("""
        @sandhog.function
        def double(n):
            return n * 2
    """)

    async def main():
        async with sandhog.AsyncSandhog(space.url, namespace=space.namespace) as client:
            return await found.double.aremote(client, 4)

    assert asyncio.run(main()) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("THING = object()\n@sandhog.function\ndef f(): return THING", "uses THING, a object"),
        ("@sandhog.function\ndef f(): return missing", "the name missing, which is not defined"),
        (
            "def make(n):\n    @sandhog.function\n    def f(): return n\n    return f\nf = make(1)",
            "uses n of the function around it",
        ),
    ],
)
def test_what_a_sandbox_cannot_have_is_named(module, text, message):
    found = module(text)
    with pytest.raises(sandhog.FunctionError, match=message):
        found.f()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@sandhog.function\ndef f(): yield 1", "is a generator"),
        ("f = sandhog.function(lambda: 1)", "a lambda"),
        ("@sandhog.function(argv=['x'])\ndef f(): pass", "no option 'argv'"),
        ("@sandhog.function(timout=1)\ndef f(): pass", "did you mean 'timeout'"),
        ("@sandhog.model(image='A B')\nclass M:\n    def f(self, x): pass", "'A B' is not valid"),
        ("@sandhog.model(image='a')\nclass M:\n    def f(self): pass", "takes 0 inputs"),
        ("@sandhog.model(image='a')\nclass M: pass", "no public method"),
        (
            "@sandhog.model(image='a', batched=['g'])\nclass M:\n    def f(self, x): pass",
            "no method 'g'",
        ),
    ],
)
def test_what_cannot_be_decorated_is_refused(module, text, message):
    with pytest.raises(TypeError, match=message):
        module(text)


def test_bad_arguments_are_named_before_anything_is_sent(module):
    found = module("@sandhog.function\ndef f(when): return when")
    with pytest.raises(sandhog.InvalidJobError, match=r"when\[0\] is a set"):
        found.f([{1}])
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        found.f(1, other=1)
    with pytest.raises(sandhog.NoValueError, match="complex"):
        module("@sandhog.function\ndef f(): return 1j").f()


def test_a_class_becomes_an_image_that_answers(module, tmp_path, space, client, monkeypatch):
    image = f"py-{space.namespace[-8:]}"
    found = module(f"""
        LOUD = "!"

        def shout_at(text):
            return text.upper() + LOUD

        @sandhog.model(image="{image}", summary="Makes texts loud", max_batch=4, batched=["many"])
        class Shout:
            def load(self):
                self.count = 0

            def shout(self, text: str) -> str:
                return shout_at(text)

            def many(self, texts):
                return [len(text) for text in texts]

            def pieces(self, text):
                yield from text
    """)
    monkeypatch.setenv("PATH", f"{space.program.parent}:/usr/sbin:/usr/bin:/sbin:/bin")
    found.Shout.build(tmp_path / "images")
    try:
        shout = found.Shout.remote(client)
        assert shout.shout("hello") == "HELLO!"
        assert shout.many("four") == 4
        pieces = []
        result = client.infer(
            image, "abc", method="pieces", on_output=lambda piece: pieces.append(piece.text)
        )
        assert ("".join(pieces), result.value) == ("abc", "abc")
        with pytest.raises(sandhog.FailedError, match="AttributeError"):
            shout.shout(7)
        with pytest.raises(AttributeError, match="no method 'whisper'"):
            shout.whisper("x")
        told = client.run(f"import sandhog; sandhog.infer('{image}', 'inside')", infer=[image])
        assert told.unwrap() == "INSIDE!"
    finally:
        import subprocess

        subprocess.run(
            ["docker", "rmi", "-f", f"sandhog/{image}"], capture_output=True, check=False
        )
