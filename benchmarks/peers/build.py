"""Builds the C and C++ programs of this folder into a temporary one, where what they need is installed."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FLAGS = ("-O3", "-ffp-contract=off", "-fno-strict-aliasing", "-DNDEBUG")  # as CMake builds the kernels


def missing_for_flatc() -> str:
    """What is not installed, in words; "" when the C++ peer can be built."""
    programs = [name for name in ("gcc", "g++", "flatc") if shutil.which(name) is None]
    headers = Path("/usr/include/flatbuffers/flatbuffers.h")
    return ", ".join(programs + ([] if headers.exists() else ["libflatbuffers-dev"]))


def build_codec_peers(folder: Path) -> ctypes.CDLL:
    """The library of codec_peers.cpp. Raises `CalledProcessError` where a compiler refuses."""
    schema, made = ROOT / "schemas" / "market_data.fbs", folder / "codec_peers.so"
    subprocess.run(["flatc", "--cpp", "-o", folder, schema], check=True)
    shared = (*FLAGS, "-fPIC", "-fno-semantic-interposition")
    objects = []
    for source in (HERE / "codec_flux.c", ROOT / "ext" / "crc32c.c"):
        objects.append(folder / f"{source.stem}.o")
        subprocess.run(["gcc", *shared, "-std=gnu11", "-c", source, "-o", objects[-1]], check=True)
    flags = (*shared, "-shared", "-std=c++17", f"-I{folder}", f"-I{HERE}")
    subprocess.run(["g++", *flags, HERE / "codec_peers.cpp", *objects, "-o", made], check=True)
    return ctypes.CDLL(str(made))


def build_ring_loop(folder: Path) -> ctypes.CDLL | None:
    """The loops of ring_flux.c; None without a compiler. Raises `CalledProcessError` where it refuses."""
    if shutil.which("gcc") is None:
        return None
    made = folder / "ring_flux.so"
    source = HERE / "ring_flux.c"
    subprocess.run(["gcc", *FLAGS, "-std=gnu11", "-shared", "-fPIC", source, "-o", made], check=True)
    library = ctypes.CDLL(str(made))
    library.place_in_order.restype = ctypes.c_int64
    library.random_lines.restype = ctypes.c_int64
    library.random_lines.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32]
    library.place_in_order.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32]
    return library
