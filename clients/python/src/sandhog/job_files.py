"""Files of a job: content given in memory, and files and folders of this machine."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from .errors import InvalidJobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LEFT_OUT = {".git", ".hg", ".svn", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}


def read_files(files: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the files of a job as its payload has them.

    A folder keeps its subfolders. Version control, caches, virtual environments and links that lead
    out of the folder are left out.

    Raises:
        InvalidJobError: A file cannot be read, or two have the same path.
    """
    found: dict[str, Any] = {}
    for path, content in files.items():
        for name, data in _expand(path, content):
            if name in found:
                raise InvalidJobError(f"files has two files with the path {name!r}")
            found[name] = data
    return found


def _expand(path: str, content: Any) -> Iterator[tuple[str, str | bytes]]:
    if isinstance(content, str | bytes):
        yield path, content
    elif isinstance(content, bytearray | memoryview):
        yield path, bytes(cast("bytes", content))
    elif isinstance(content, os.PathLike):
        try:
            yield from _read(path, Path(cast("os.PathLike[str]", content)))
        except OSError as error:
            raise InvalidJobError(f"files[{path!r}] cannot be read: {error}") from error
    else:
        raise InvalidJobError(
            f"files[{path!r}] has the type {type(content).__name__}",
            hint="use text, bytes, or a pathlib.Path of a file or folder of this machine",
        )


def _read(path: str, source: Path) -> Iterator[tuple[str, bytes]]:
    if not source.is_dir():
        yield path, source.read_bytes()
        return
    root = source.resolve()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _is_left_out(Path(folder) / name))
        for name in sorted(names):
            file = Path(folder) / name
            inside = file.resolve().is_relative_to(root) and file.is_file()
            if inside:
                relative = PurePosixPath(file.relative_to(root))
                yield str(PurePosixPath(path) / relative), file.read_bytes()


def _is_left_out(folder: Path) -> bool:
    return (
        folder.name in _LEFT_OUT
        or folder.is_symlink()
        or (folder / "pyvenv.cfg").exists()
        or (folder / "CACHEDIR.TAG").exists()
    )
