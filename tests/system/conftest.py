"""What is shipped, built once for all tests: the sdist, the wheel from it, and an environment with the wheel."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from tests.system.packages import run


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    code = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, out)
    (made,) = out.glob("*.tar.gz")
    return made


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # From the sdist, in its own folder: what it lacks, the build lacks.
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    (source,) = (path for path in out.iterdir() if path.is_dir())
    quiet = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "-q")
    run(sys.executable, "-m", "pip", "wheel", *quiet, "-w", out, source, cwd=out)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel alone. numpy and the others are lent by PYTHONPATH, without
    the .pth files: the editable flux stays away."""
    made = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", made)
    install = ("install", "--no-deps", "--no-index", "--disable-pip-version-check", "-q")
    run(sys.executable, "-m", "pip", "--python", made / "bin" / "python", *install, wheel)
    return made / "bin"
