"""An image of the disk, started and judged: a process of its own does it for many (`judge_image`).

The image is brought to life by the steps of a server's start (`flux.server.storage.recover`) on another boot of the
machine; what it then holds, and what its journal alone gives, go to the checker, with all that was shown before the
cut.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flux.errors import DamagedError, FluxError
from flux.model import CANDLE
from flux.server.storage import recover as recovery
from flux.server.storage.rebuild import rebuild
from tests.disk import images
from tests.disk.lives import FILE_BYTES, KEYS
from tests.system.checker import Account, Case, digests, judge

ROWS_AT_ONCE = 100_000


class Image(NamedTuple):
    """What a worker is given; `files` by path, `shown` a `SHOWN` array, `source` rows by stream."""

    name: str
    files: dict[str, bytes]
    shown: NDArray[np.void]
    source: list[NDArray[np.void]]
    durability: str
    folder: Path
    from_journal: bool
    """Also without its database."""


class Found(NamedTuple):
    """What a start found in an image, or why it refused; `violations` as text."""

    name: str
    violations: list[str]
    epoch: int
    store_id: int
    shown: int
    heads: list[int]
    rebuilt: bool = False
    """Whether its database did not read, so that `flux rebuild` had to be typed."""


def judge_image(image: Image) -> Found:
    """Start the image, judge it, and leave nothing behind."""
    logging.disable(logging.CRITICAL)
    try:
        images.write(image.files, image.folder)
        original(image.folder)
        return _judged(image)
    finally:
        shutil.rmtree(image.folder, ignore_errors=True)
        logging.disable(logging.NOTSET)


def original(directory: Path, *, rebooted: bool = True) -> None:
    """Let a copy of a directory count as the directory itself, on a machine that was started anew: what a power cut
    leaves has its inodes and its times."""
    path = directory / "identity"
    if not path.exists():
        return
    content = path.read_bytes()
    try:
        said = json.loads(content)
    except ValueError:
        return  # cut short: for the start to judge
    if rebooted:
        said["machine_boot"] = "after the power cut"
    if "inode" in said:
        said["inode"] = path.stat().st_ino
    if said.get("marks"):
        from flux.server.storage.origin import marks_of  # late: where directories have marks

        said["marks"] = _marked(said["marks"], marks_of(directory))
    path.write_bytes(json.dumps(said).encode().ljust(len(content) - 1) + b"\n")


def _marked(recorded: Sequence[Any], now: Any) -> list[Any]:
    """The marks that a file had where it is there, as they are in the copy."""
    marks = (now.identity, now.origin, now.fence)
    return [
        [getattr(mark, name) for name in type(mark).__struct_fields__] if was and mark else was
        for was, mark in zip(recorded, marks, strict=True)
    ]


def _judged(image: Image) -> Found:
    shown, rebuilt_database = len(image.shown), False
    try:
        try:
            epoch, store_id, ends, kept = _started(image, "the database")
        except DamagedError:  # the server goes on without it, DEGRADED, and says to type this
            rebuild(image.folder, cut=False, say=lambda _: None)
            epoch, store_id, ends, kept = _started(image, "the database, rebuilt")
            rebuilt_database = True
        accounts = [[account] for account in kept]
        if image.from_journal:
            for name in ("flux.duckdb", "flux.duckdb.wal"):
                (image.folder / name).unlink(missing_ok=True)
            again, _, _, rebuilt = _started(image, "rebuilt from the journal")
            for both, account in zip(accounts, rebuilt, strict=True):
                both.append(account)
            if again != epoch:
                return Found(
                    image.name, [f"a second start made epoch {again} of {epoch}"], epoch, store_id, shown, []
                )
    except (FluxError, OSError) as error:
        return Found(image.name, [f"refused: {type(error).__name__}: {error}"], 0, 0, shown, [])
    violations = []
    for stream, key in enumerate(KEYS):
        case = Case(
            image.source[stream],
            (_shown(image.shown[image.shown["stream"] == stream]),),
            accounts[stream],
            ends=ends[stream],
        )
        violations += [f"{key}: {violation}" for violation in judge(case)]
    heads = [len(account) for account in kept]
    return Found(image.name, violations, epoch, store_id, shown, heads, rebuilt_database)


def _shown(rows: NDArray[np.void]) -> Account:
    """What was shown, each once; in which order it came is not asked here."""
    numbers = (rows["epoch"].astype(np.uint64) << np.uint64(40)) + rows["sequence"]
    _, first = np.unique(np.stack((numbers, digests(rows["row"].copy()))), axis=1, return_index=True)
    rows = rows[np.sort(first)]
    rows = rows[
        np.argsort((rows["epoch"].astype(np.uint64) << np.uint64(40)) + rows["sequence"], kind="stable")
    ]
    runs = range(1, len(rows))  # nothing is said about their order
    return Account("shown", rows["epoch"], rows["sequence"], rows["row"].copy(), whole=False, runs=runs)


def _started(image: Image, place: str) -> tuple[int, int, list[dict[int, int]], list[Account]]:
    """Epoch, store, and by stream where epochs ended and what is kept."""
    recovered = recovery.recover(image.folder, disk=image.durability == "disk", file_bytes=FILE_BYTES)
    try:
        by_key = {head.stream.key: head for head in recovered.streams.values()}
        ends, kept = [], []
        for key in KEYS:
            head = by_key.get(key)
            number = 0 if head is None else head.stream.stream_id
            ends.append(_ends(recovered.identity.epochs, number))
            account = kept_of(recovered.store, number, place)
            if head is not None and head.head != (int(account.sequences[-1]) if len(account) else 0):
                raise OSError(f"{key}: the head is {head.head}, {place} ends at {account.sequences[-1:]}")
            kept.append(account)
        return recovered.identity.epoch, recovered.identity.store_id, ends, kept
    finally:
        recovered.journal.close(clean=False)
        recovered.fence.close()
        recovered.projected.close()
        recovered.store.close()
        recovered.lock.release()


def _ends(epochs: Sequence[Any], stream: int) -> dict[int, int]:
    """The last sequence that a later epoch kept of each that has ended. What ended twice ended at the lower one."""
    found: dict[int, int] = {}
    for record in epochs:
        end = _end(record.ends, stream)
        found = {epoch: min(last, end) for epoch, last in found.items()}
        found[record.epoch - 1] = end
    return found


def _end(ends: Mapping[int, int], stream: int) -> int:
    return int(ends.get(stream, 0))


def kept_of(store: Any, number: int, place: str) -> Account:
    """All rows of a stream, through SQL of our own on the store's connection."""
    names = ", ".join(CANDLE.names or ())
    with store._database.reading() as cursor:
        columns = cursor.execute(
            f"SELECT sequence, epoch, {names} FROM candles WHERE stream_id = ? ORDER BY sequence", [number]
        ).fetchnumpy()
    rows = np.zeros(len(columns["sequence"]), CANDLE)
    for name in CANDLE.names or ():
        rows[name] = columns[name]
    return Account(place, columns["epoch"].astype(np.uint32), columns["sequence"].astype(np.uint64), rows)
