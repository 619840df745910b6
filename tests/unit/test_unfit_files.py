"""What stands in the place of a data directory's file and is none: one sentence that names it. And what the system does
not let be read now is never called damage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flux import journal
from flux.config import ServeConfig
from flux.errors import FluxError, StorageError
from flux.server.service import Server
from flux.server.storage.checkup import troubles
from flux.server.storage.directory import DirectoryLock, machine_boot, read_identity
from flux.server.storage.losses import CURSOR, Losses
from flux.server.storage.origin import marks_of
from tests.no_descriptors import no_descriptors

ENDS = "tcp://127.0.0.1:*"
NAMES = [
    "identity",
    "origin",
    "fence",
    "projected",
    "losses",
    "acknowledged",
    "lock",
    "journal",
    "flux.duckdb",
]


def start(data: Path) -> None:
    server = Server(ServeConfig(data, ENDS, ENDS))
    server.start()
    server.stop()


def loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [loop, os.mkfifo, Path.mkdir])
@pytest.mark.parametrize("name", NAMES)
def test_a_start_names_what_is_no_file(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    data = tmp_path / "data"
    start(data)
    Losses(data).note(CURSOR, "a reason")
    place = data / name
    if place.is_dir():
        place.rename(tmp_path / "aside")
    else:
        place.unlink(missing_ok=True)
    make(place)
    said = ""
    try:
        start(data)
    except FluxError as error:
        said = str(error)
    named = str(place) in said or (name in ("lock", "journal") and str(data) in said)
    assert not said or (named and "seek" not in said), said
    for trouble in troubles(data):
        assert trouble.text


@pytest.mark.parametrize("name", ["fence", "projected"])
def test_a_fifo_is_no_fence(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    start(data)
    (data / name).unlink()
    os.mkfifo(data / name)
    with pytest.raises(StorageError, match=f"{name}: is no regular file"):
        start(data)


@pytest.mark.parametrize(
    "read",
    [
        read_identity,
        lambda data: Losses(data).open((), 1),
        journal.files,
        lambda data: machine_boot(),
    ],
)
def test_no_descriptor_is_no_damage(tmp_path: Path, read: Callable[[Path], object]) -> None:
    data = tmp_path / "data"
    start(data)
    Losses(data).note(CURSOR, "a reason")
    with no_descriptors(), pytest.raises(StorageError, match="Too many open files"):
        read(data)


def test_a_mark_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    loop(tmp_path / "origin")
    with pytest.raises(StorageError, match="origin: Too many levels of symbolic links"):
        marks_of(tmp_path)


def test_a_lock_is_taken_after_one_that_was_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(FluxError, match="is no regular file"):
        DirectoryLock(tmp_path)
    (tmp_path / "lock").unlink()
    DirectoryLock(tmp_path).release()


def test_a_database_that_the_system_does_not_open_is_not_to_be_rebuilt(tmp_path: Path) -> None:
    data = tmp_path / "data"
    start(data)
    with no_descriptors(1):  # DuckDB has to read it, and the check of its lock
        texts = [trouble.text for trouble in troubles(data) if trouble.name == "database"]
    assert all("rebuild" not in text for text in texts)
    (data / "flux.duckdb").write_bytes(b"garbage" * 4_096)
    (text,) = [trouble.text for trouble in troubles(data) if trouble.name == "database"]
    assert "flux rebuild" in text
