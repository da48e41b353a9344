"""The programs of the README and of the guide, run unchanged, print what the pages say."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import sandhog

PACKAGE = Path(__file__).parents[1]
CHECKOUT = PACKAGE.parents[1]
README = PACKAGE / "README.md"
GUIDE = CHECKOUT / "docs/guides/python.md"
BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)


def programs(page: Path) -> list[tuple[str, str]]:
    """Returns each program of a page and what it prints.

    Blocks that do not import the package continue the one before.
    """
    found: list[tuple[str, str]] = []
    for language, text in BLOCK.findall(page.read_text()):
        if language == "text":
            program, printed = found[-1]
            found[-1] = program, printed + text
        elif re.search(r"^(import|from) sandhog", text, re.MULTILINE):
            found.append((text, ""))
        else:
            program, printed = found[-1]
            found[-1] = f"{program}\n{text}", printed
    return found


CASES = [(page, n) for page in (README, GUIDE) for n in range(len(programs(page)))]


@pytest.mark.parametrize(("page", "number"), CASES, ids=lambda case: getattr(case, "name", case))
def test_a_program_of_a_page_works(page, number, space, tmp_path):
    program, printed = programs(page)[number]
    file = tmp_path / "program.py"
    file.write_text(program)
    run = subprocess.run(
        [sys.executable, file],
        env=space.environment(),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (run.returncode, run.stdout) == (0, printed), run.stderr


def test_the_package_installs_into_an_empty_environment(space, tmp_path):
    """The wheel needs only its two dependencies, and the first example works."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=PACKAGE, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("sandhog-*.whl")
    assert sandhog.__version__ in wheel.name
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    install = [python, "-m", "pip", "install", "--no-index", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # Without a network the dependencies are those of this environment, linked one by one.
    (site,) = (tmp_path / "env/lib").glob("python*/site-packages")
    for name in ("redis", "msgpack"):
        (site / name).symlink_to(Path(__import__(name).__file__).parent)
    typed = next(site.glob("sandhog/py.typed"))
    assert typed.exists()
    program, printed = programs(README)[0]
    environment = space.environment()
    del environment["PYTHONPATH"]
    run = subprocess.run(
        [python, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, printed), run.stderr


def test_the_reference_is_current():
    generate = [sys.executable, PACKAGE / "docs/generate.py", "--check"]
    environment = {"PYTHONPATH": str(PACKAGE / "src")}
    run = subprocess.run(generate, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "command",
    [["ruff", "check"], ["ruff", "format", "--check"], ["pyright", "--pythonpath", sys.executable]],
    ids=" ".join,
)
def test_a_check_is_clean(command):
    program = Path(sys.executable).parent / command[0]
    run = subprocess.run(
        [program, *command[1:]], cwd=PACKAGE, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
