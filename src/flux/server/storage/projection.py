"""Projection: the journal's committed records into the store, exactly once, behind the loop's back.

Rows and the journal position after them go in in one transaction, so a start goes on where the last transaction
ended. What the store has, the rings may evict; the loop is told, for it may be waiting for that.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from flux import journal
from flux.errors import DamagedError, DataError, FluxError, StorageError
from flux.journal import Position
from flux.journal.records import HeadsRecord, StreamRecord, unpack
from flux.limits import KIB, MAX_RECORD_BYTES, PROJECT_MAX_ROWS, PROJECT_ROWS
from flux.model import RowKind, State, StreamKey
from flux.server.storage.gentle import Gentle
from flux.store.base import Store, StoreBatch
from flux.transport.pump import Gatherer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from flux.server.pipeline.committer import Committer
    from flux.server.vitals import Vitals

PAUSE_S: Final = 1.8
"""From one step's beginning to the next one's: a step takes a core for some ms, however little it stores."""
GENTLE_S: Final = 2.0
"""A gentle step that takes longer has found no idle core: for HASTY_S all steps compete like anything else."""
HASTY_S: Final = 60.0
RETRY_S: Final = 0.5
WAIT_S: Final = 0.25

STEP_BYTES: Final = MAX_RECORD_BYTES + 64 * KIB
"""Of the journal read in one step: the longest record, and its header."""

_NO_END: Final = 2**63

Persisted = dict[int, int]
"""stream_id -> the sequence up to which the store has it."""


class JournalReadError(StorageError):
    """The journal could not be read now: no fault of the database."""


class JournalDamageError(DataError):
    """The journal does not read: no fault of the database."""


@contextlib.contextmanager
def _of_the_journal() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise JournalReadError(str(error)) from error


class Projection:
    """Steps from the store's position towards a committed one; no thread of its own."""

    def __init__(self, directory: Path, store: Store, first: Position, end: Position) -> None:
        """`first`: where a new store begins; `end`: of the journal, before anything is added to it."""
        self._store = store
        self._first = first
        self._reach = end  # no store that was filled from this journal is beyond it
        self.directory = directory
        self._bytes = bytearray(STEP_BYTES)
        self._whole = (0, 0)  # a file, and where its groups stop reading
        self._gather = Gatherer(PROJECT_MAX_ROWS, ready=PROJECT_ROWS)
        self._sure = False  # that `position` is the store's
        self.position = first
        with contextlib.suppress(StorageError, DamagedError):  # a step asks again
            self._ask()
        self.rows = 0

    def _ask(self) -> None:
        """Go on where the store is."""
        stored = self._store.position()
        position = self._first if stored is None else Position(*stored)
        if position > self._reach:  # a start looks at that, but then it did not open, and the journal goes on
            raise DamagedError("it was filled beyond the end that the journal had when the server started")
        self.position, self._sure = position, True

    def step(self, committed: Position) -> Persisted:
        """Store the next rows below `committed`, at most PROJECT_MAX_ROWS, in one transaction.

        Raises StorageError: nothing of the step went in, and the next one begins at the store's own position; and
        DamagedError where the database does not read. Raises DataError where the journal cannot be read: what stands
        before that is in the store.
        """
        if not self._sure:
            self._ask()
        position = self.position
        with self._read(position, committed) as part:
            try:
                gathered = self._gather(part, 0)
            except ValueError as error:
                raise self._damaged(position) from error
            streams = _streams(part, gathered.records)
        after = Position(position.file, position.offset + gathered.stopped)
        if after == position:
            after = self._behind(position, committed)
        batches = [
            batch for kind in gathered.rows if (batch := _batch(kind, gathered.records, gathered.rows[kind]))
        ]
        try:
            if after != position:
                self._reach = max(self._reach, after)
                self._store.commit(batches, streams, after)
        except (StorageError, DamagedError):
            self._sure = False
            self._ask()
            raise
        self.position = after
        self.rows += sum(len(batch.rows) for batch in batches)
        return _last(gathered.records)

    def _read(self, position: Position, committed: Position) -> memoryview:
        """The next bytes of the journal, as many as a step may need. Borrowed until the next call."""
        size = len(self._bytes)
        if position.file == committed.file:
            self._whole = (
                position.file,
                _NO_END,
            )  # followed while it was written: not read once more when it is left
            end = committed.offset
        else:
            end = self._whole_until(position.file)
        size = max(0, min(size, end - position.offset))
        whole = memoryview(self._bytes)[:size]
        path = journal.path_of(self.directory, position.file)
        with _of_the_journal():
            return whole[: journal.read_part(path, position.offset, whole)]

    def _whole_until(self, number: int) -> int:
        """Where the groups of an older file stop reading: a batch says nothing of its topic and of its neighbours."""
        if self._whole[0] != number:
            with _of_the_journal():
                data = journal.read_file(journal.path_of(self.directory, number))
            self._whole = number, journal.scan(data).committed
        return self._whole[1]

    def _behind(self, position: Position, committed: Position) -> Position:
        """Where reading goes on when no record begins at `position`: in the next file, if this one ends here."""
        if position >= committed:
            return position
        with _of_the_journal():
            rest = journal.read_file(journal.path_of(self.directory, position.file), position.offset)
        if position.file == committed.file or journal.scan(rest, position.offset).tail > position.offset:
            raise self._damaged(position)
        # Not simply one more: `flux rebuild --cut` sets aside a file of which nothing reads.
        number = min(file.number for file in journal.files(self.directory) if file.number > position.file)
        return Position(number, journal.FILE_HEADER_BYTES)

    def _damaged(self, at: Position) -> DataError:
        return JournalDamageError(
            f"{journal.path_of(self.directory, at.file)}: damaged after byte {at.offset}. The rows there cannot be "
            f"read; `flux rebuild {self.directory}` says what that loses, and what `--salvage` and `--cut` keep"
        )


def _streams(data: memoryview, records: NDArray[np.void]) -> dict[int, StreamKey]:
    """The streams that STREAM records among these give a number to, and those that a file's HEADS name: the file
    in which they got theirs may be gone."""
    found = {}
    told = (records["kind"] == 0) & np.isin(records["epoch"], (journal.STREAM, journal.HEADS))
    for record in records[told]:
        body = data[int(record["first"]) :][: int(record["count"])]
        if record["epoch"] == journal.STREAM:
            stream = unpack(body, StreamRecord)
            found[stream.stream_id] = stream.key
        elif record["epoch"] == journal.HEADS:
            heads = unpack(body, HeadsRecord)
            found |= {head.stream.stream_id: head.stream.key for head in heads.streams}
    return found


def _last(records: NDArray[np.void]) -> Persisted:
    """The last sequence of each stream among these; within a stream they ascend."""
    batches = records[records["kind"] != 0][::-1]
    stream_ids, at = np.unique(batches["stream_id"], return_index=True)
    last = batches["first"][at] + batches["count"][at] - 1
    return dict(zip(stream_ids.tolist(), last.tolist(), strict=True))


def _batch(kind: RowKind, records: NDArray[np.void], rows: NDArray[np.void]) -> StoreBatch | None:
    """The rows of one kind with the columns that their records imply."""
    if len(rows) == 0:
        return None
    mine = records[records["kind"] == kind]
    counts = mine["count"]
    within = np.arange(len(rows), dtype=np.uint64) - np.repeat(np.cumsum(counts) - counts, counts).astype(
        np.uint64
    )
    return StoreBatch(
        kind=kind,
        stream_ids=np.repeat(mine["stream_id"], counts),
        sequences=np.repeat(mine["first"], counts) + within,
        epochs=np.repeat(mine["epoch"], counts),
        rows=rows,
    )


def without_database(directory: Path, error: FluxError) -> str:
    """What an operator is to know and do when the database does not follow and the server goes on."""
    if isinstance(error, (JournalReadError, JournalDamageError)):
        return f"the journal cannot be read, and the database does not follow it (it is tried again): {error}"
    cure = (
        f"stop the server, `flux rebuild {directory}` fills it anew from the journal"
        if isinstance(error, DamagedError)
        else "it is tried again"
    )
    return f"the database fails, what only it has is unavailable ({cure}): {error}"


class Projector:
    """The thread that follows the committer with a projection; `run` is its body.

    While the store refuses, the rings let go of what only the journal has: rows go on, and who asks for those is told
    to ask again later (`lags`).
    """

    def __init__(
        self,
        *,
        projection: Projection,
        store: Store,
        committer: Committer,
        vitals: Vitals,
        persisted: Callable[[Persisted], None],
        hurry: threading.Event,
    ) -> None:
        self._projection = projection
        self._store = store
        self._committer = committer
        self._vitals = vitals
        self._persisted = persisted
        self._hurry = hurry
        self._stopping = threading.Event()
        self._gentle = Gentle("flux projection")
        self._hasty_until = 0.0
        self._behind = False
        self._let_go = Position(0, 0)

    def run(self) -> None:
        """Project until stopped, and what is committed by then."""
        with self._gentle:
            self._follow()

    def _follow(self) -> None:
        while True:
            stopping = self._stopping.is_set()
            committed = self._committer.wait_past(self._projection.position, 0 if stopping else WAIT_S)
            if committed > self._projection.position:
                if not self._step(committed):
                    if stopping:
                        break  # the journal has it: the next start projects it
                    self._bear()
            elif stopping:
                break
            else:
                self._tidy()

    def _tidy(self) -> None:
        try:
            if self._store.idle():
                self._vitals.clear("store")
        except (StorageError, DamagedError) as error:
            self._failed(error)
            self._stopping.wait(RETRY_S)

    @property
    def lags(self) -> bool:
        """Whether the rings let go of rows that the store does not have yet; from any thread."""
        return self._projection.position < self._let_go

    def _bear(self) -> None:
        """Wait before the next try; meanwhile no ring holds up the loop for the store's sake."""
        until = time.monotonic() + RETRY_S
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            self._persisted(self._committer.heads())
            self._hurry.wait(left)
            self._hurry.clear()
            self._let_go = max(
                self._let_go, self._committer.committed
            )  # after the heads: they are marked first

    def stop(self) -> None:
        """End `run` once it has caught up with what is committed."""
        self._stopping.set()
        self._hurry.set()

    def _step(self, committed: Position) -> bool:
        before, began = self._projection.rows, time.monotonic()
        try:
            persisted = self._advance(committed)
        except (StorageError, DataError) as error:
            self._failed(error)
            return False
        self._vitals.clear("store")
        self._persisted(persisted)
        stored = self._projection.rows - before
        self._behind = stored >= PROJECT_MAX_ROWS
        if not self._behind and not self._stopping.is_set():
            self._hurry.wait(max(0.0, began + PAUSE_S - time.monotonic()))
        self._hurry.clear()
        return True

    def _failed(self, error: StorageError | DataError) -> None:
        self._vitals.set("store", State.DEGRADED, without_database(self._projection.directory, error))

    def _advance(self, committed: Position) -> Persisted:
        """One step: a gentle one, unless there is a backlog, somebody waits, or gentle ones were starved lately."""
        began = time.monotonic()
        waited_for = self._hurry.is_set() or self._stopping.is_set()
        if self._behind or waited_for or began < self._hasty_until:
            return self._projection.step(committed)
        persisted = self._gentle.run(lambda: self._projection.step(committed), self._hurry.is_set)
        ended = time.monotonic()
        if ended - began > GENTLE_S:
            self._hasty_until = ended + HASTY_S
        return persisted
