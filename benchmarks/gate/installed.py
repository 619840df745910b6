"""A tree as a user has it: its wheel, and an environment of its own with that wheel and the libraries of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.building import changed

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FLUX_"))}
"""The environment without what changes how Python starts or what flux does."""
BUILT_OF = ("ext", "src", "schemas", "CMakeLists.txt", "pyproject.toml")
"""What a wheel is made of, but for the README that is quoted in it."""


class Installed(NamedTuple):
    """Where it is."""

    python: Path  # the interpreter whose `import flux` finds it, and that of all its children
    flux: Path  # the package's folder
    wheel: Path


def _files(root: Path) -> list[Path]:
    found = []
    for name in BUILT_OF:
        place = root / name
        found += [p for p in place.rglob("*") if p.is_file()] if place.is_dir() else [place]
    return [p for p in found if p.suffix not in (".so", ".pyc")]


def environment(folder: Path) -> tuple[Path, Path]:
    """A new virtual environment that also finds the libraries of ours, but not our editable flux: its python and its
    packages' folder. A .pth file in a folder that was added by a .pth file is not looked at."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python", packages


def install(root: Path, out: Path) -> Installed:
    """The wheel of the tree `root`, built and unpacked in `out`; again only when something changed.

    Raises CalledProcessError, with what was said as its `stderr`, where it does not build.
    """
    out.mkdir(parents=True, exist_ok=True)
    wheels, mark = out / "wheel", out / "installed.state"
    if state := changed(mark, _files(root), [str(root)]):
        mark.unlink(missing_ok=True)
        shutil.rmtree(wheels, ignore_errors=True)
        quiet = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "-q")
        command = [sys.executable, "-m", "pip", "wheel", *quiet, "-w", wheels, root]
        subprocess.run(command, cwd=out, check=True, capture_output=True, text=True)
        (wheel,) = wheels.glob("*.whl")
        python, packages = environment(out / "environment")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
        # As pip does it at the end: whoever imports it finds it compiled.
        compiling = [python, "-m", "compileall", "-q", packages / "flux"]
        subprocess.run(compiling, check=True, env=PLAIN)
        mark.write_text(state)
    (wheel,) = wheels.glob("*.whl")
    (flux,) = (out / "environment").glob("lib/*/site-packages/flux")
    return Installed(out / "environment" / "bin" / "python", flux, wheel)
