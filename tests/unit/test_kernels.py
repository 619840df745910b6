"""What a user is told whose kernels are not built, and what `import flux.codec` brings along."""

from __future__ import annotations

import subprocess
import sys

import pytest

import flux.kernels


def test_a_kernel_that_is_not_built_names_the_one_command() -> None:
    with pytest.raises(
        ImportError, match=r"flux\.kernels\.telegraph is not built.*python -m pip install -e \."
    ):
        _ = flux.kernels.telegraph


def test_the_codec_needs_numpy_and_the_kernels_alone() -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, flux.codec; print(*{name.partition('.')[0] for name in sys.modules})",
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    heavy = {"zmq", "duckdb", "flatbuffers", "msgspec", "zstandard", "pandas", "asyncio"}
    assert not heavy & set(found.stdout.split())
