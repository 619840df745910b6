"""The codec from Cython of your own: builds `cython_extension_kernel.pyx` in a temporary folder and uses it.

    python -m flux.examples.cython_extension

Needs Cython and a C compiler. In a project of your own, setuptools or meson do what `build` does here: the one
thing to give them is `flux.codec.get_include()` as include directory.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

import flux

NAME = "cython_extension_kernel"


def build(folder: Path) -> Path:
    """The module, compiled into `folder`. Raises `CalledProcessError` where Cython or the compiler refuse."""
    source, made = (folder / f"{NAME}.c"), folder / f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", Path(__file__).with_name(f"{NAME}.pyx"), "-o", source],
        check=True,
    )
    include = [f"-I{sysconfig.get_path('include')}", f"-I{flux.codec.get_include()}"]
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, "-O2", "-fPIC", "-shared", *include, source, "-o", made], check=True)
    return made


def load(module: Path) -> ModuleType:
    """The built module, imported from where it stands."""
    spec = importlib.util.spec_from_file_location(NAME, module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def main() -> None:
    """Encodes with one side, decodes with the other, both ways round."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = load(build(Path(folder)))
        rows = np.zeros(2, flux.CANDLE)
        rows["volume"], rows["turnover"] = [1.0, 3.0], [10.0, 60.0]
        frame = flux.codec.encode(rows, flux.StreamKey("SIM", "BTCUSDT", "1m"))
        print(f"vwap of two candles, read by Cython: {kernel.vwap([frame])}")
        batch = flux.codec.decode(kernel.one_candle(b"SIM", b"BTCUSDT", b"1m", 1_700_000_000_000, 20.0, 2.0))
        print(f"a candle written by Cython: {batch} close {batch.close[0]} vwap {batch.vwap[0]}")


if __name__ == "__main__":
    main()
