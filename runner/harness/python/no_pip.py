#!/usr/bin/python3
"""Replaces pip: explains the origin of packages, and lists the installed ones.

An image links to it as the program `pip` and as the module `pip`.
"""

import importlib.metadata
import sys

REASON = """\
pip: no package can be installed here. A sandbox has no network, and nothing in it outlives its job.
The image has the packages that `pip list` shows. Its author adds others in image.toml:
    [python]
    packages = ["NAME==VERSION"]
"""


def main(arguments):
    if arguments[:1] not in (["list"], ["freeze"]):
        sys.stderr.write(REASON)
        return 1
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    for name, version in sorted(found.items(), key=lambda package: package[0].lower()):
        print(f"{name}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
