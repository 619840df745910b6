"""`flux doctor`: what this installation and this machine can do, and what is wrong.

Every check reports what it found; a failing one also what follows from it. Nothing is changed, but for a file that is
written into the data directory and removed again; and with --ack-loss and --same-store, what a server believes of
its directory (`server/storage/advice.py`).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from flux.limits import JOURNAL_FILE_BYTES, MAX_MAPPED_RINGS, MIB, SLICE_NS, server_bytes
from flux.named_files import no_database_name
from flux.slices import granted

KERNELS: Final = (
    "admit", "arrow", "bridge", "codec", "drive", "histogram", "indicator", "journal", "pump", "ring", "window",
)  # fmt: skip
LIBRARIES: Final = ("numpy", "pyzmq", "duckdb")

MAPPINGS_A_RING: Final = 2
DEFAULT_SLACK_NS: Final = 50_000


class Finding(NamedTuple):
    """What one check found. `ok` False: something does not work; None: it works, and could be better."""

    name: str
    ok: bool | None
    text: str


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux doctor",
        description="Check this installation and this machine. Exit code 1 when something does not work.",
    )
    made.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="check a server's data directory too: whether it can be written, and what is wrong with it",
    )
    decisions = made.add_mutually_exclusive_group()
    decisions.add_argument(
        "--ack-loss",
        type=Path,
        metavar="DIR",
        help="acknowledge the losses that this data directory's server reports: it is no longer DEGRADED because of "
        "them, whether it runs or not",
    )
    decisions.add_argument(
        "--same-store",
        type=Path,
        metavar="DIR",
        help="declare that this data directory, moved or restored on purpose, is the original, and that no other copy "
        "goes on; before its next start, which would make another store of it",
    )
    made.add_argument("--json", action="store_true", help="one object per check, for a program to read")
    return made


def run(arguments: argparse.Namespace) -> int:
    if arguments.ack_loss or arguments.same_store:
        return _decide(arguments)
    findings = list(examine(arguments.data))
    for finding in findings:
        if arguments.json:
            print(json.dumps(finding._asdict()))
        else:
            mark = {True: "ok", False: "FAILED", None: "WARN"}[finding.ok]
            print(f"{mark:<7} {finding.name:<13} {finding.text}")
    return 1 if any(finding.ok is False for finding in findings) else 0


def _decide(arguments: argparse.Namespace) -> int:
    from flux.server.storage import advice  # late: the checks need no database

    if arguments.same_store:
        print(f"flux doctor: {advice.same_store(arguments.same_store)}")
        return 0
    known = advice.acknowledge(arguments.ack_loss)
    for reason in known:
        print(f"flux doctor: acknowledged: {reason}")
    if not known:
        print("flux doctor: nothing to acknowledge")
    return 0


def examine(data: Path | None) -> Iterator[Finding]:
    """All checks, one after the other; `data` is checked where it is given."""
    yield Finding(
        "python", sys.version_info >= (3, 11), f"{platform.python_version()}, {platform.platform()}"
    )
    yield from _libraries()
    missing = {name: error for name in KERNELS if (error := _import_error(name))}
    built = len(KERNELS) - len(missing)
    told = "".join(f"; {name}: {error}" for name, error in missing.items())
    yield Finding("kernels", not missing, f"{built} of {len(KERNELS)} built{told}")
    for name, check in (("codec", _checksum), ("pump", _pump)):
        if name not in missing:
            yield check()
    yield from (_mappings(), _worst_case(), _slack(), _slices())
    if data is not None:
        yield _data(data)
        yield from _kept(data)


def _kept(directory: Path) -> Iterator[Finding]:
    """What is wrong with what is kept there, with the command to type."""
    if not directory.is_dir():
        return
    try:
        from flux.server.storage import checkup  # late: the other checks need no database and no kernel
    except ImportError as error:
        yield Finding("kept", False, f"what is kept in {directory} cannot be checked: {error}")
        return
    for trouble in checkup.troubles(directory):
        yield Finding(trouble.name, False if trouble.fatal else None, trouble.text)


def _kernel(name: str) -> ModuleType:
    return importlib.import_module(f"flux.kernels.{name}")


def _import_error(name: str) -> str:
    """Why a kernel cannot be loaded; "" when it can."""
    try:
        _kernel(name)
    except ImportError as error:
        return str(error)
    return ""


def _libraries() -> Iterator[Finding]:
    for name in LIBRARIES:
        try:
            yield Finding(name, True, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, False, f"not installed: pip install {name}")


def _checksum() -> Finding:
    if _kernel("codec").crc32c_in_hardware():
        return Finding("crc32c", True, "by the processor's instruction")
    return Finding("crc32c", None, "by table, some ten times slower: this processor has no crc32 instruction")


def _pump() -> Finding:
    try:
        from flux.transport import pump, sockets
    except ImportError as error:
        return Finding("pump", False, f"{error}")
    version = sockets.libzmq_version()
    if pump.NATIVE:
        return Finding("pump", True, f"native: libzmq {version} is called in batches")
    why = f"messages go through pyzmq one by one, some fifteen times slower: {pump.FALL_BACK}"
    return Finding("pump", None, f"fall-back (libzmq {version}): {why}")


def _read(path: str) -> str:
    """A file of the kernel's, or "" where there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _mappings() -> Finding:
    """Rings of MAPPED_RING_ROWS or more take two mappings each; the others come from chunks."""
    limit, wanted = _read("/proc/sys/vm/max_map_count"), MAPPINGS_A_RING * MAX_MAPPED_RINGS
    huge = _read("/sys/kernel/mm/transparent_hugepage/enabled")
    pages = f"; transparent huge pages: {huge}" if huge else ""
    if not limit:
        return Finding(
            "memory", None, f"this system does not say how many mappings a process may have{pages}"
        )
    if int(limit) < 2 * wanted:
        why = f"{limit} mappings a process, long rings may take {wanted}: those beyond copy where they wrap"
        return Finding("memory", None, f"{why} (vm.max_map_count){pages}")
    return Finding("memory", True, f"{limit} mappings a process, long rings take {wanted} at most{pages}")


def _worst_case() -> Finding:
    """What a server's bounds add up to: beyond that it drops the connection that sent most of late."""
    few, many = sum(server_bytes(1_000).values()), server_bytes()
    total = sum(many.values())
    parts = ", ".join(f"{name} {size // MIB}" for name, size in many.items())
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = (
        f"a server takes {few // MIB} MiB at most with 1,000 streams, {total // MIB} with the most ({parts})"
    )
    if machine < few:
        return Finding("bounds", None, f"{text}; this machine has {machine // MIB}")
    return Finding("bounds", True, text)


def _slack() -> Finding:
    """How much later than asked a sleep may end: the system's default is 50 us."""
    slack = _read("/proc/self/timerslack_ns")
    took = min(_timed(lambda: time.sleep(0.0001)) for _ in range(20)) * 1e6 - 100
    said = f"slack {int(slack) / 1_000:g} us" if slack else "slack unknown"
    ok = True if not slack or int(slack) <= DEFAULT_SLACK_NS else None
    return Finding("timer", ok, f"{said}; a sleep of 100 us ended {took:.0f} us late at best")


def _slices() -> Finding:
    """Whether threads that carry rows get a core at once from those that compute."""
    if granted():
        return Finding(
            "slices", True, f"threads that carry rows take a core at once (slices of {SLICE_NS // 1_000} us)"
        )
    why = (
        "rows may wait some milliseconds for what computes beside them (Linux 6.12 and later chooses slices)"
    )
    return Finding("slices", None, f"this kernel gives no slices to threads: {why}")


def _timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def _data(directory: Path) -> Finding:
    """Whether a server could keep its data there; a directory that is not there yet is made by the server."""
    if not directory.is_dir() and (why := no_database_name(directory)):
        return Finding("data", False, why)
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return Finding("data", False, f"{place} is not a directory")
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(4_096))
            file.flush()
            synced = min(_timed(lambda: os.fsync(file.fileno())) for _ in range(3)) * 1e3
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding("data", False, f"{place} cannot be written: {error.strerror}")
    there = f"{directory} can be written" if place == directory else f"{directory} can be made in {place}"
    text = f"{there}, {free / MIB:,.0f} MiB free, fsync {synced:.1f} ms"
    if free < 2 * JOURNAL_FILE_BYTES:
        return Finding(
            "data", False, f"{text}: a journal file alone takes {JOURNAL_FILE_BYTES / MIB:.0f} MiB"
        )
    return Finding("data", True, text)
