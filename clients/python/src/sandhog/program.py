"""Calls of the program `sandhog`, for what only a worker's permissions allow."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, cast

from .errors import ProgramError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .address import Settings


async def run_program(
    settings: Settings, arguments: Sequence[str], stdin: bytes = b""
) -> list[dict[str, Any]]:
    """Runs `sandhog` with `--json`, and returns the objects that it prints.

    The program is the first `sandhog` in the `PATH`.

    Raises:
        ProgramError: The program is missing, or failed; the message is its own.
    """
    program = _program()
    # The URL may have a password, which must not show in the list of processes.
    environment = {
        **os.environ,
        "SANDHOG_REDIS_URL": settings.url,
        "SANDHOG_NAMESPACE": settings.namespace,
    }
    environment.pop("SANDHOG_REDIS_URL_FILE", None)
    environment.pop("SANDHOG_NAMESPACE_FILE", None)
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "--json",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        raise ProgramError(f"the program {program} cannot be started: {error}") from error
    stdout, stderr = await process.communicate(stdin)
    if process.returncode:
        raise _failure(stderr, process.returncode)
    return [cast("dict[str, Any]", json.loads(line)) for line in stdout.splitlines() if line]


def run_program_here(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs `sandhog` with `--json` and these variables, without an event loop.

    Raises:
        ProgramError: The program is missing, or failed; the message is its own.
    """
    try:
        done = subprocess.run(  # noqa: S603
            [_program(), "--json", *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise ProgramError(f"the program sandhog cannot be started: {error}") from error
    if done.returncode:
        raise _failure(done.stderr, done.returncode)


def _program() -> str:
    program = shutil.which("sandhog")
    if program is None:
        raise ProgramError(
            "the program sandhog is not in the PATH",
            hint="install it, or add its folder to the PATH",
        )
    return program


def _failure(stderr: bytes, exit_code: int) -> ProgramError:
    text = stderr.decode(errors="replace").strip()
    try:
        error = json.loads(text.splitlines()[-1])["error"]
    except (ValueError, KeyError, IndexError, TypeError):
        return ProgramError(f"sandhog failed: {text}", exit_code=exit_code)
    return ProgramError(error["message"], exit_code=exit_code, hint=error.get("hint"))
