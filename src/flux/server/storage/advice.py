"""What an operator decides about a data directory: `flux doctor --ack-loss DIR` and `--same-store DIR`."""

from __future__ import annotations

from pathlib import Path

from flux import journal
from flux.errors import ConfigError, DataError
from flux.server.storage.directory import DirectoryLock, read_identity, write_identity
from flux.server.storage.losses import Losses
from flux.server.storage.scan import Scanned, scan_file


def acknowledge(directory: Path) -> list[str]:
    """The losses that are known now; those of a running server too, which looks every second.

    Raises ConfigError (no data directory), DataError, StorageError.
    """
    scanned = _scanned(directory)
    losses, store_id = Losses(directory), scanned.heads.store_id
    known = list(losses.open(scanned.epochs, store_id, scanned.heads.parent_store_id).values())
    if known:
        losses.acknowledge(scanned.epoch, store_id)
    return known


def same_store(directory: Path) -> str:
    """Make the directory the original, whatever its files' times say. Returns what was done.

    Raises ConfigError (no data directory), InUseError, DataError, StorageError.
    """
    scanned = _scanned(directory)
    lock = DirectoryLock(directory)
    try:
        store_id = scanned.heads.store_id
        found = read_identity(directory)
        if found is not None and found.said.store_id != store_id:
            raise DataError(
                f"{directory} holds parts of two stores: its journal is of {store_id:016x}, its identity of "
                f"{found.said.store_id:016x}"
            )
        if found is not None and not found.copy:
            return f"{directory} is the original of store {store_id:016x} already"
        # What durability it ran with is unknown without an identity: as if rows had been shown before they were synced.
        process = found.said.shown_before_sync if found else True
        boot, began = (found.said.machine_boot, found.said.began) if found else (None, None)
        write_identity(directory, store_id, process=process, boot=boot, began=began)
        return f"{directory} is the original of store {store_id:016x} from now on"
    finally:
        lock.release()


def _scanned(directory: Path) -> Scanned:
    files = journal.files(directory)
    if not files:
        raise ConfigError(f"{directory} holds no journal: it is no data directory")
    scanned, damage = scan_file(files[-1])
    if scanned is None:
        raise DataError(f"{damage}")
    return scanned
