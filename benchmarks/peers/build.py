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


def build_codec_peers(folder: Path) -> Path:
    """The program of codec_peers.cpp. Raises `CalledProcessError` where a compiler refuses."""
    schema, program = ROOT / "schemas" / "market_data.fbs", folder / "codec_peers"
    subprocess.run(["flatc", "--cpp", "-o", folder, schema], check=True)
    objects = []
    for source in (HERE / "codec_flux.c", ROOT / "ext" / "crc32c.c"):
        objects.append(folder / f"{source.stem}.o")
        subprocess.run(["gcc", *FLAGS, "-std=gnu11", "-c", source, "-o", objects[-1]], check=True)
    flags = (*FLAGS, "-std=c++17", f"-I{folder}", f"-I{HERE}")
    subprocess.run(["g++", *flags, HERE / "codec_peers.cpp", *objects, "-o", program], check=True)
    return program


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


def flatc_version() -> str:
    """As flatc says it."""
    return subprocess.run(["flatc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
