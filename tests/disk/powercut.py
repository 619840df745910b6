"""The campaign of power cuts: lives are recorded, images made of the recordings, and every image judged.

Two generations for each durability: the first begins with no directory and ends with kills at entries of the log that
are drawn, one stop among them. The second goes on from an image of the first that has lost rows, so it begins a new
epoch. Everything comes from one seed.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.disk import images, log
from tests.disk.judging import Found, Image, judge_image, original
from tests.disk.lives import Lives, Recording, entries_of
from tests.disk.log import Kind

FROM_JOURNAL_ALONE = 10  # one image in so many is started without its database too
ALL_ROWS = 1_000_000  # entries of a log that no life has: it goes on to its last row
IMAGES_PER_ROUND = 250


class Told(NamedTuple):
    """What a campaign found."""

    images: int
    violations: list[str]
    new_epochs: int
    """Images that began a new epoch, or were in one."""
    shown: int
    """Rows that were shown before the cut, over all images."""
    rebuilt: int
    """Images whose database did not read: a torn write-ahead log is one that DuckDB refuses."""
    rotations: int
    """Journal files that the recorded lives began."""


def campaign(folder: Path, durability: str, count: int, rng: random.Random) -> Told:
    """`count` images, judged: in rounds, each of recordings of its own."""
    found: list[Found] = []
    rotations = 0
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # images are for reading: no disk is needed
    with (
        ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool,
        tempfile.TemporaryDirectory(dir=fast) as images_folder,
    ):
        for number in range(-(-count // IMAGES_PER_ROUND)):
            here = min(IMAGES_PER_ROUND, count - len(found))
            parts = Path(images_folder), durability, rng, pool
            found += _round(folder / str(number), here, *parts)
            rotations += sum(map(_rotations, (folder / str(number)).glob("*/log")))
            shutil.rmtree(folder / str(number))
    violations = [f"{told.name}: {violation}" for told in found for violation in told.violations]
    return Told(
        len(found),
        violations,
        sum(told.epoch > 1 for told in found),
        sum(told.shown for told in found),
        sum(told.rebuilt for told in found),
        rotations,
    )


def _round(
    folder: Path, count: int, out: Path, durability: str, rng: random.Random, pool: ProcessPoolExecutor
) -> Iterator[Found]:
    first = first_generation(folder / "first", durability, rng, 1 if count < IMAGES_PER_ROUND else 3)
    yield from pool.map(
        judge_image, _images(first, entries_of(first), durability, count // 2, rng, out), chunksize=4
    )
    base = lost_tail(first)
    told = pool.submit(judge_image, _base(first, base, durability, out)).result()
    assert not told.violations, told.violations
    assert told.epoch > 1, "rows are lost, and no new epoch says so"
    second = second_generation(folder / "second", durability, rng, first, base, told.heads)
    yield from pool.map(
        judge_image,
        _images(second, entries_of(second), durability, count - count // 2, rng, out),
        chunksize=4,
    )


def _rotations(recorded: Path) -> int:
    """Journal files after the first."""
    return sum(
        entry.kind is Kind.RENAME
        and entry.path.endswith(".fluxlog")
        and not entry.path.endswith("00000001.fluxlog")
        for entry in log.read(recorded)
    )


def first_generation(folder: Path, durability: str, rng: random.Random, kills: int) -> Recording:
    """A store from its beginning: killed in its first start, under load, in a later start; stopped; killed again."""
    data = folder / "data"
    data.mkdir(parents=True)
    lives = Lives(folder, data, rng, durability)
    lives.live(kill_at=rng.randrange(2, 40))
    for _ in range(kills):
        lives.live(kill_at=rng.randrange(60, 160))
        lives.live(idle=True)  # it answers with what the one before had written, and syncs nothing by itself
    lives.live(
        entries=ALL_ROWS, stop=True
    )  # so that files are full, however few kills fell behind a rotation
    lives.live(kill_at=rng.randrange(5, 40))
    lives.live(kill_at=rng.randrange(60, 120))
    lives.live(idle=True)
    return lives.recording


def second_generation(
    folder: Path,
    durability: str,
    rng: random.Random,
    first: Recording,
    base: dict[str, bytes],
    heads: list[int],
) -> Recording:
    """A store that has lost its last rows: it begins a new epoch, is killed, stopped, and killed again."""
    data = folder / "data"
    images.write(base, data)
    original(data)
    lives = Lives(folder, data, rng, durability, first, heads)
    lives.live(kill_at=rng.randrange(5, 60))
    lives.live(kill_at=rng.randrange(60, 160))
    lives.live(idle=True)
    for _ in range(2):  # together more than a file holds: there is a rotation, wherever the kills fell
        lives.live(entries=ALL_ROWS, stop=True)
    lives.live(kill_at=rng.randrange(60, 160))
    return lives.recording


def lost_tail(recording: Recording) -> dict[str, bytes]:
    """The directory as it is at the end of a recording, without the last groups of its journal: of a file that has just
    begun without all of it."""
    disk = followed(recording)
    files = disk.left(images.Newest())
    last = max(name for name in files if name.endswith(".fluxlog"))
    if len(files[last].rstrip(b"\0")) < 16_384:
        del files[last]
        last = max(name for name in files if name.endswith(".fluxlog"))
    content = files[last]
    keep = len(content.rstrip(b"\0")) - 8192
    return files | {last: content[:keep] + bytes(len(content) - keep)}


def followed(recording: Recording) -> images.Disk:
    """The directory at the end of a recording."""
    disk = images.Disk(recording.data, recording.base)
    for entry in entries_of(recording):
        disk.follow(entry)
    return disk


def careless(folder: Path, count: int, rng: random.Random) -> list[Found]:
    """`count` images of a server that shows rows and never waits for its journal's disk: its syncs are taken out of a
    recording. What is found in them shows that the campaign would find it."""
    data = folder / "data"
    data.mkdir(parents=True)
    lives = Lives(folder, data, rng, "disk")
    lives.live(kill_at=120)
    recording = lives.recording
    entries = [
        entry
        for entry in entries_of(recording)
        if not (entry.kind is Kind.SYNCED and entry.path.endswith(".fluxlog"))
    ]
    return [judge_image(image) for image in _images(recording, entries, "disk", count, rng, folder)]


def _base(recording: Recording, files: dict[str, bytes], durability: str, out: Path) -> Image:
    """An image that the second generation begins with: nothing that was shown has to be in it."""
    return Image("base", files, recording.shown_rows[:0], recording.source, durability, out / "base", False)


def _images(
    recording: Recording,
    entries: list[log.Entry],
    durability: str,
    count: int,
    rng: random.Random,
    out: Path,
) -> Iterator[Image]:
    """`count` of them, with what was shown before each cut."""
    times = np.array([entry.time_ns for entry in entries[1:]] + [2**63 - 1])
    shown = recording.shown_rows
    disk = images.Disk(recording.data, recording.base)
    folder = recording.data.parent
    for number, (moment, files) in enumerate(images.draw(disk, entries, rng, count)):
        yield Image(
            f"{durability} {folder.parent.name}/{folder.name} image {number} after entry {moment}",
            files,
            shown[shown["time_ns"] < times[moment]],
            recording.source,
            durability,
            out / f"{folder.parent.name}-{folder.name}-{number}",
            number % FROM_JOURNAL_ALONE == 0,
        )
