"""Builds kernels and programs of a tree by hand, apart from the installed ones: for the gate and for the fuzzer."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def release_flags(root: Path) -> list[str]:
    """The compiler's flags of a tree's release build, as its CMakeLists.txt says."""
    said = (root / "CMakeLists.txt").read_text()
    flags = re.search(r'set\(CMAKE_C_FLAGS_RELEASE "([^"]*)"\)', said)
    standard = re.search(r"set\(CMAKE_C_STANDARD (\d+)\)", said)
    if flags is None or standard is None:
        raise ValueError(f"{root}/CMakeLists.txt says neither flags nor standard where they are looked for")
    return [f"-std=gnu{standard[1]}", *flags[1].split()]


def changed(mark: Path, files: Iterable[Path], flags: Sequence[str]) -> str | None:
    """What to write into `mark` once something is built of these; None when it is built already."""
    digest = hashlib.sha256(" ".join((sys.version, *flags)).encode())
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    state = digest.hexdigest()
    return None if mark.exists() and mark.read_text() == state else state


def sources(ext: Path) -> list[Path]:
    """All that is compiled of a folder."""
    return [path for name in ("*.h", "*.c", "*.pxd", "*.pxi", "*.pyx") for path in ext.rglob(name)]


def included(ext: Path) -> list[str]:
    """Where the compiler looks for a folder's headers: there, and in the load generator's part of it."""
    return [f"-I{ext}", f"-I{ext / 'loadgen'}"]


def pyx_of(ext: Path, name: str) -> Path | None:
    """The source of a kernel; None where a tree has no such kernel."""
    return next(iter(ext.rglob(f"{name}.pyx")), None)


def linked(ext: Path) -> list[Path]:
    """What is compiled by itself and linked to every kernel: the .c files of a folder."""
    return sorted(ext.glob("*.c"))


def compile_c(made: Path, flags: Sequence[str | Path], *files: Path) -> None:
    """One call of gcc. Raises CalledProcessError where it refuses."""
    subprocess.run(["gcc", *flags, *files, "-o", made], check=True)


def _kernel(ext: Path, pyx: Path, package: Path, work: Path, flags: Sequence[str]) -> None:
    import numpy as np  # late: C programs need none

    name = pyx.stem
    source, suffix = work / f"{name}.c", sysconfig.get_config_var("EXT_SUFFIX")
    cython = [sys.executable, "-m", "cython", "-3", f"-I{ext}", "--module-name", f"flux.kernels.{name}"]
    subprocess.run([*cython, pyx, "-o", source], check=True)
    found = [*included(ext), *(f"-I{folder}" for folder in (np.get_include(), sysconfig.get_path("include")))]
    plain = ["-shared", "-fPIC", "-w", "-DNPY_NO_DEPRECATED_API=0x14"]
    compile_c(package / "kernels" / f"{name}{suffix}", [*flags, *plain, *found], source, *linked(ext))


def package(root: Path, out: Path, kernels: Sequence[str], flags: Sequence[str]) -> Path:
    """A folder that holds the `flux` of a tree with these kernels, as far as they exist there; built when something
    changed. Raises CalledProcessError where a compiler refuses."""
    ext, python = root / "ext", root / "src" / "flux"
    folder, mark = out / "package", out / "package.state"
    state = changed(mark, [*sources(ext), *python.rglob("*.py")], [*kernels, *flags])
    if state:
        out.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(python, folder / "flux", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        for name in kernels:
            if pyx := pyx_of(ext, name):
                _kernel(ext, pyx, folder / "flux", out, flags)
        mark.write_text(state)
    return folder
