"""Builds libzmq.c, and finds the libzmq that pyzmq runs over: flux's own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import zmq

from benchmarks.building import ROOT, compile_c, included
from benchmarks.peers.build import FLAGS
from benchmarks.peers.bus.spec import HWM, WINDOW, Spec, frame, topics
from benchmarks.peers.bus.trial import Command

HERE = Path(__file__).resolve().parent


def library() -> str:
    """The shared object that this process has open; "" when libzmq is a part of pyzmq's own."""
    version = zmq.zmq_version_info()
    assert version >= (4, 3)
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next((line.split()[-1] for line in lines if "/libzmq" in line), "")


def missing() -> str:
    """What is not there to build and run it, in words; "" when all is."""
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    return "" if library() else "pyzmq brings no libzmq of its own to link with"


def build(folder: Path) -> Command:
    """The command of either end, once the program is in this folder."""
    program = folder / "libzmq"
    libraries = ("-Wl,--no-as-needed", "-ldl", "-lm")
    compile_c(program, [*FLAGS, "-std=gnu11", *included(ROOT / "ext"), *libraries], HERE / "libzmq.c")

    def command(role: str, spec: Spec, board: Path, _: str) -> Sequence[str]:
        prefix = topics()[0].removesuffix(b"00\x1f").decode()
        numbers = (spec.rate, spec.duration_ns, spec.warmup_ns)
        sizes = (len(topics()[0]), len(frame()), HWM, WINDOW)
        return [str(program), role, library(), str(board), *map(str, numbers), prefix, *map(str, sizes)]

    return command
