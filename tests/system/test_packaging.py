"""What is shipped: the sdist builds the wheel, and the wheel works where nothing of this checkout is."""

from __future__ import annotations

import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.system.packages import run

ROOT = Path(__file__).resolve().parents[2]
KERNELS = {path.stem: str(path.relative_to(ROOT)) for path in sorted((ROOT / "ext").rglob("*.pyx"))}

pytestmark = pytest.mark.system

_USE = """
import sys
import flux.codec
assert flux.__file__.startswith(sys.prefix), flux.__file__
strangers = {"zmq", "duckdb", "flatbuffers", "zstandard", "msgspec"} & set(sys.modules)
assert not strangers, f"import flux.codec loads {strangers}"
import numpy as np
key = flux.StreamKey("SIM", "BTCUSDT", "1m")
rows = np.zeros(3, flux.CANDLE)
rows["close"] = [1.0, 2.0, 3.0]
batch = flux.codec.decode(flux.codec.encode(rows, key, 7))
assert (batch.key, batch.start_sequence) == (key, 7)
assert (batch.rows == rows).all()
"""


def test_the_sdist_holds_what_builds_and_nothing_else(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "CMakeLists.txt",
        "LICENSE",
        "README.md",
        "docs/architecture.md",
        "pyproject.toml",
        "src/flux/py.typed",
        "ext/row.h",
    ):
        assert needed in names
    assert set(KERNELS.values()) <= names
    assert {"schemas/market_data.fbs", "schemas/loadgen_report.schema.json"} <= names
    for name in names:
        assert not name.startswith(("tests/", "benchmarks/", "tools/", "build/", ".ci/", ".git/")), name
        assert not name.endswith((".so", ".pyc")), name


def test_the_wheel_holds_types_stubs_and_kernels_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    installed = ("flux/store/tables.sql", "flux/schemas/loadgen_report.schema.json")
    for needed in ("flux/py.typed", "flux/__init__.py", *installed):
        assert needed in names
    for kernel in KERNELS:
        assert f"flux/kernels/{kernel}{suffix}" in names
        assert f"flux/kernels/{kernel}.pyi" in names
    assert any(name.startswith("flux/schema/generated/") for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    for name in names:
        top = name.partition("/")[0]
        assert top == "flux" or top.startswith("flux_marketdata-"), name
        for_others = name.startswith(("flux/include/flux/", "flux/examples/"))
        assert for_others or not name.endswith((".pyx", ".c", ".h", ".pyc")), name
    assert {"flux/include/flux/codec.h", "flux/include/flux/crc32c.c", "flux/kernels/codec.pxd"} <= names


def test_the_wheel_works_in_a_fresh_environment(fresh: Path, tmp_path: Path) -> None:
    libraries = sysconfig.get_path("purelib")
    run(fresh / "python", "-c", _USE, cwd=tmp_path, PYTHONPATH=libraries)
    told = run(fresh / "flux", "version", cwd=tmp_path, PYTHONPATH=libraries)
    assert told.startswith("flux 0.")
