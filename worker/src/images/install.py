"""Installs the packages that an image.toml names below /built, beside those that the image has.

The image's own packages count as installed, and each keeps its version. The build later copies
/built over the image; that adds files only, so it must not mix two versions of one package.
"""

import compileall
import glob
import importlib.metadata
import os
import py_compile
import subprocess
import sys

ROOT = "/built"
REQUIREMENTS = "/build/requirements.txt"
CONSTRAINTS = "/build/constraints.txt"
CERTIFICATES = "/build/host-certificates.crt"


def pip():
    wheels = glob.glob("/usr/share/python-wheels/pip-*.whl")
    if not wheels:
        sys.exit("the package python3-pip-whl contains no pip wheel")
    return [sys.executable, "-s", wheels[0] + "/pip"]


def keep_versions():
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    with open(CONSTRAINTS, "w") as file:
        file.writelines(f"{name}=={version}\n" for name, version in sorted(found.items()))


def install():
    if os.path.exists(CERTIFICATES):
        os.environ["PIP_CERT"] = CERTIFICATES
    command = [*pip(), "install", "--root", ROOT, "--quiet", "--progress-bar", "off"]
    command += ["--no-cache-dir", "--no-compile", "--prefer-binary", "--disable-pip-version-check"]
    command += ["--root-user-action", "ignore", "--break-system-packages"]
    command += ["--no-warn-script-location"]
    command += ["--constraint", CONSTRAINTS, "--requirement", REQUIREMENTS]
    if subprocess.run(command).returncode:
        sys.exit(
            "pip could not install the packages of image.toml (image packages keep their versions)"
        )


def compile_all():
    """Compiles without source checks: an image never changes, and a cell cannot store bytecode."""
    good = compileall.compile_dir(
        ROOT,
        quiet=1,
        workers=0,
        stripdir=ROOT,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not good:
        sys.exit("at least one module of the packages does not compile")


os.makedirs(ROOT, exist_ok=True)
keep_versions()
install()
compile_all()
