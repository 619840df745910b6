"""When the disk is waited for, counted from outside: the recorder of tests/disk sees every write and sync (S3)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.disk.lives import Lives
from tests.disk.log import Entry, Kind, read
from tests.system.processes import wait_until

pytestmark = pytest.mark.system

SYNCS = 4
"""Rows flow for 0.8 s at least. One sync is that of the file's making, and one that of a life's end."""


def covered(entries: list[Entry], write: int) -> int | None:
    """CLOCK_MONOTONIC, ns, when a sync that began after the `write`th entry was over; None: there was none."""
    inode, begun = entries[write].inode, set()
    for entry in entries[write + 1 :]:
        if entry.kind is Kind.SYNCING and entry.inode == inode:
            begun.add(entry.a)
        elif entry.kind is Kind.SYNCED and entry.a in begun and entry.b == 0:
            return entry.time_ns
    return None


def journal_writes(entries: list[Entry]) -> list[int]:
    """Which entries write to a journal file."""
    journal = {entry.inode for entry in entries if entry.kind is Kind.CREATE and ".fluxlog" in entry.path}
    return [at for at, entry in enumerate(entries) if entry.kind is Kind.WRITE and entry.inode in journal]


def unsynced(entries: list[Entry], shown: NDArray[np.void]) -> list[int]:
    """The sequences of rows that came to a subscriber before the write that holds them was synced."""
    found, at = [], 0
    writes = journal_writes(entries)
    for stream in np.unique(shown["stream"]).tolist():
        at = 0
        for row in np.sort(shown[shown["stream"] == stream], order=("sequence", "time_ns")):
            wanted = row["row"].tobytes()
            while wanted not in entries[writes[at]].data:
                at += 1  # fails with an IndexError if the journal never had it
            done = covered(entries, writes[at])
            if done is None or done > row["time_ns"]:
                found.append(int(row["sequence"]))
    return found


def test_disk_every_group_is_synced_before_it_is_published(tmp_path: Path, rng: random.Random) -> None:
    data = tmp_path / "data"
    data.mkdir()
    lives = Lives(tmp_path, data, rng, "disk")
    lives.live(kill_at=80)
    entries, shown = read(lives.recording.log), lives.recording.shown_rows
    assert len(shown) > 50, "nothing was shown"
    assert unsynced(entries, shown) == []
    # The same life, had nobody waited for the disk: the look above would have seen it.
    never = [entry for entry in entries if entry.kind is not Kind.SYNCED]
    assert len(unsynced(never, shown)) == len(shown)


def test_process_syncs_while_rows_flow(tmp_path: Path, rng: random.Random) -> None:
    """Every 100 ms, so again and again within a life; and what came last is synced without another row."""
    data, log = tmp_path / "data", tmp_path / "log"
    data.mkdir()

    def synced_writes() -> tuple[int, bool]:
        """How many syncs covered writes of their own, and whether the last write is covered."""
        entries = read(log)
        writes = journal_writes(entries)
        over = {covered(entries, at) for at in writes}
        return len(over - {None}), bool(writes) and covered(entries, writes[-1]) is not None

    def flowed() -> bool:
        syncs, last = synced_writes()
        return syncs >= SYNCS and last

    lives = Lives(tmp_path, data, rng, "process", file_bytes=0, rows=1_000, tick="40ms")
    lives.live(when=lambda: wait_until(flowed, "the journal is synced"))
