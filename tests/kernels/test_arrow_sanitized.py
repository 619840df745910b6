"""Arrow structs taken apart in every order under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_no_part_is_read_after_it_is_gone_or_leaked(tmp_path: Path) -> None:
    program = tmp_path / "release_arrow"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror"]
    source = [f"-I{HERE.parents[1] / 'ext'}", str(HERE / "release_arrow.c"), "-o", str(program)]
    subprocess.run(["gcc", "-O1", "-g", *sanitize, *source], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[0]) > 200
