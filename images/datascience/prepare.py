"""Makes the installed packages ready for cells: small, compiled, and with no cache to write at first use."""

import compileall
import os
import pathlib
import py_compile
import re
import shutil
import subprocess
import sys

# Their own tests. numpy's stay: its testing module, which others import, takes a part of them.
TESTED = ["pandas", "scipy", "sklearn", "matplotlib", "mpl_toolkits", "joblib", "contourpy"]


def remove_tests(packages):
    for name in TESTED:
        for folder in list((packages / name).rglob("tests")):
            if folder.is_dir():
                shutil.rmtree(folder)
    shutil.rmtree(packages / "bin", ignore_errors=True)


def add_font(packages):
    """Draws the characters that matplotlib's own font lacks with the font of the Dockerfile."""
    settings = packages / "matplotlib" / "mpl-data" / "matplotlibrc"
    before = settings.read_text()
    line = re.compile(r"^#font\.family:\s+sans-serif$", re.MULTILINE)
    if len(line.findall(before)) != 1:
        sys.exit("matplotlib's matplotlibrc sets font.family in another way now")
    settings.write_text(line.sub("font.family: sans-serif, WenQuanYi Micro Hei", before))


def keep_fonts(packages):
    """Lists the fonts once, in a file beside matplotlib's own data: a cell has no cache that outlives it."""
    module = packages / "matplotlib" / "font_manager.py"
    before = module.read_text()
    where = 'mpl.get_cachedir(), f"fontlist-v'
    if before.count(where) != 1:
        sys.exit("matplotlib keeps its list of fonts elsewhere now: look at _load_fontmanager again")
    module.write_text(before.replace(where, 'mpl.get_data_path(), f"fontlist-v'))
    environment = {"PYTHONPATH": str(packages), "HOME": "/tmp", "MPLBACKEND": "Agg", "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], env=environment, check=True)
    lists = list((packages / "matplotlib" / "mpl-data").glob("fontlist-v*.json"))
    if len(lists) != 1:
        sys.exit("matplotlib wrote no list of fonts")


def compile_all(packages):
    """Unchecked: nothing in an image changes, so Python need not look whether it did."""
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
        sys.exit("some module does not compile")


def main():
    packages = pathlib.Path(sys.argv[1])
    remove_tests(packages)
    add_font(packages)
    keep_fonts(packages)
    compile_all(packages)


if __name__ == "__main__":
    main()
