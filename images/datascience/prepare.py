"""Prepares the installed packages for cells: small, compiled, and without caches to write."""

import compileall
import os
import pathlib
import py_compile
import re
import shutil
import subprocess
import sys

# Packages whose own tests are removed. numpy's tests stay: its testing module, which others import,
# uses a part of them.
TESTED = ["pandas", "scipy", "sklearn", "matplotlib", "mpl_toolkits", "joblib", "contourpy"]


def remove_tests(packages):
    for name in TESTED:
        for folder in list((packages / name).rglob("tests")):
            if folder.is_dir():
                shutil.rmtree(folder)
    shutil.rmtree(packages / "bin", ignore_errors=True)


def add_font(packages):
    """Adds the Dockerfile's font for characters that matplotlib's own font lacks."""
    settings = packages / "matplotlib" / "mpl-data" / "matplotlibrc"
    before = settings.read_text()
    line = re.compile(r"^#font\.family:\s+sans-serif$", re.MULTILINE)
    if len(line.findall(before)) != 1:
        sys.exit("want one line \"#font.family: sans-serif\" in matplotlib's matplotlibrc")
    settings.write_text(line.sub("font.family: sans-serif, WenQuanYi Micro Hei", before))


def keep_fonts(packages):
    """Writes the list of fonts beside matplotlib's data, because a cell has no lasting cache."""
    module = packages / "matplotlib" / "font_manager.py"
    before = module.read_text()
    where = 'mpl.get_cachedir(), f"fontlist-v'
    if before.count(where) != 1:
        sys.exit("matplotlib moved its list of fonts: check _load_fontmanager in font_manager.py")
    module.write_text(before.replace(where, 'mpl.get_data_path(), f"fontlist-v'))
    environment = {
        "PYTHONPATH": str(packages),
        "HOME": "/tmp",
        "MPLBACKEND": "Agg",
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, "-c", "import matplotlib.font_manager"]
    subprocess.run(command, env=environment, check=True)
    lists = list((packages / "matplotlib" / "mpl-data").glob("fontlist-v*.json"))
    if len(lists) != 1:
        sys.exit("matplotlib wrote no list of fonts")


def compile_all(packages):
    """Compiles all modules to bytecode that Python does not check against the source.

    The files of an image never change, so the check would only cost time.
    """
    for stale in packages.rglob("__pycache__"):
        shutil.rmtree(stale)
    good = compileall.compile_dir(
        packages,
        quiet=1,
        workers=0,
        stripdir=packages,
        prependdir="/usr/local/lib/python3.11/dist-packages",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not good:
        sys.exit("at least one module does not compile; see the messages above")


def main():
    packages = pathlib.Path(sys.argv[1])
    remove_tests(packages)
    add_font(packages)
    keep_fonts(packages)
    compile_all(packages)


if __name__ == "__main__":
    main()
