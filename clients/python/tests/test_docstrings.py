"""Each public docstring has an example, and every example works with a real worker."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import os
import sys
from pathlib import Path

import pytest

import sandhog

FLAGS = doctest.ELLIPSIS


def public_objects():
    """Yields the name and the object of everything that a caller may use."""
    yield "sandhog", sandhog
    for name in sandhog.__all__:
        found = getattr(sandhog, name)
        if not (inspect.isclass(found) or inspect.isfunction(found)):
            continue
        yield name, found
        for member, value in vars(found).items() if inspect.isclass(found) else ():
            value = getattr(value, "fget", value)
            value = getattr(value, "__func__", value)
            is_own = inspect.isfunction(value) and not member.startswith("_")
            if is_own or member == "__call__":
                yield f"{name}.{member}", value


PUBLIC = dict(public_objects())


def test_every_public_docstring_has_an_example():
    missing = [
        name
        for name, found in PUBLIC.items()
        if ">>> " not in (found.__doc__ or "") and not name.endswith(".__call__")
    ]
    assert missing == []


def examples_of(name: str):
    doc = PUBLIC[name].__doc__ or ""
    module = importlib.import_module("sandhog")
    return doctest.DocTestParser().get_doctest(
        doc, {"sandhog": module, "asyncio": asyncio}, name, None, None
    )


WITH_EXAMPLES = [name for name, found in PUBLIC.items() if ">>> " in (found.__doc__ or "")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the first examples of two classes write for the others."""
    folder = tmp_path_factory.mktemp("examples")
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    for name in ("Function", "Model"):
        exec(examples_of(name).examples[0].source)
    yield folder
    sys.path.remove(str(folder))
    os.chdir(before)


def run(name: str, client) -> str:
    test = examples_of(name)
    test.globs["client"] = client
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    runner.run(test, out=report.append, clear_globs=False)
    return "".join(report)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_example_works(name: str, environment, client, folder, monkeypatch):
    # Decorated functions of the examples use the default client.
    monkeypatch.setattr("sandhog.default._CLIENTS", [client])
    report = run(name, client)
    assert report == "", report
