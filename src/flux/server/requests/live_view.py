"""What requests see of the running server: committed heads of its streams, and rows out of the rings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flux.errors import DataError, FluxError, StorageError
from flux.journal.records import FIRST_EPOCH, feed_name
from flux.limits import MAX_REPLY_ROWS, ONE_LIFE_RUNS
from flux.model import MAX_SEQUENCE, RowKind, State, StreamKey
from flux.server.requests.view import Claim, Health, RunPosition, StreamView
from flux.server.storage.losses import CURSOR
from flux.transport.topics import V1Topics

if TYPE_CHECKING:
    from flux.journal import Past, Position
    from flux.journal.records import StreamRecord
    from flux.server.identity import Identity
    from flux.server.pipeline.claims import Claims
    from flux.server.pipeline.committer import Committer
    from flux.server.pipeline.sessions import Runs
    from flux.server.requests.view import Rows, StoreReader
    from flux.server.storage.losses import Losses
    from flux.server.vitals import Vitals
    from flux.transport.pump import Streams

_LOG = logging.getLogger("flux.server")


class LiveView:
    """A `ServerView` over the tables of the running threads; used by the request threads."""

    def __init__(
        self,
        *,
        identity: Identity,
        streams: Streams,
        records: dict[int, StreamRecord],
        committer: Committer,
        runs: Runs,
        claims: Claims,
        vitals: Vitals,
        losses: Losses,
        past: Past,
        projected: Callable[[], Position],
        stored: Mapping[int, int],
    ) -> None:
        self._identity = identity
        self._streams = streams
        self._records = records
        self._committer = committer
        self._runs = runs
        self._claims = claims
        self._vitals = vitals
        self._losses = losses
        self._past = past
        self._projected = projected
        self._stored = stored
        self._version1 = V1Topics()
        self._version1_known = 0
        self.cursors_ahead = 0

    @property
    def store_id(self) -> int:
        return self._identity.store_id

    @property
    def epoch(self) -> int:
        return self._identity.epoch

    @property
    def parent_store_id(self) -> int:
        return self._identity.parent_store_id

    def health(self) -> Health:
        return Health(self._vitals.state, self._vitals.reason)

    def stream(self, key: StreamKey) -> StreamView | None:
        slot = self._streams.slot(key)
        return None if slot is None else self._view(slot, key)

    def stream_by_id(self, stream_id: int) -> StreamView | None:
        record = self._records.get(stream_id)
        return None if record is None else self.stream(record.key)

    def streams_after(self, stream_id: int) -> Iterator[StreamView]:
        newest = max(list(self._records), default=0)  # a copy: another thread may add one now
        for number in range(stream_id + 1, newest + 1):
            found = self.stream_by_id(number)
            if found is not None:
                yield found

    def epoch_ends(self, stream_id: int) -> Mapping[int, int]:
        return {
            record.epoch - 1: record.ends[stream_id]
            for record in self._identity.epochs
            if stream_id in record.ends
        }

    def rows_epoch(self, stream_id: int, sequence: int) -> tuple[int, int]:
        last = MAX_SEQUENCE
        for record in reversed(self._identity.epochs):
            end = record.ends.get(stream_id, 0)
            if sequence > end:
                return record.epoch, last
            last = min(last, end)
        return FIRST_EPOCH, last

    def ring_first(self, stream_id: int) -> int:
        return self._streams.ring(self._slot(stream_id)).first

    def ring_rows(self, stream_id: int, first: int, last: int) -> Rows | None:
        rows = self._streams.ring(self._slot(stream_id)).window(first, last)
        return rows if len(rows) == last - first + 1 else None

    def run_position(self, source_id: str, run: int, refused_after: int) -> RunPosition | None:
        name = feed_name(source_id, run)
        position = self._committer.source_position(name)
        if position is None and self._committer.may_have_forgotten(name):
            return None
        committed, incarnation = position or (0, 0)
        total, refused = self._runs.refused(name, refused_after, committed)
        return RunPosition(committed, incarnation, total, refused)

    def claim_run(self, source_id: str, run: int, token: int) -> Claim:
        name = feed_name(source_id, run)
        if run < ONE_LIFE_RUNS and self._committer.may_have_forgotten_durable(name):
            return Claim.FORGOTTEN
        incarnation = self._claims.claim(source_id, run, token)
        if incarnation is None:
            return Claim.NOT_TAKEN
        if incarnation and self._committer.claimed(name) >= incarnation:
            return Claim.HELD
        if incarnation and not self._committer.is_known(
            name
        ):  # others came and it had to go: it is claimed anew
            self._claims.forget(source_id, run, token)
            self._claims.claim(source_id, run, token)
        return Claim.ON_ITS_WAY

    def journal_rows(
        self, stream_id: int, kind: RowKind, after: int, last: int, *, all_files: bool = False
    ) -> tuple[int, Rows]:
        since = 0 if all_files else self._projected().file
        try:
            found = self._past.read(stream_id, kind, after, last, MAX_REPLY_ROWS + 1, since)
        except (StorageError, DataError) as error:
            self._vitals.set("past", State.DEGRADED, f"rows that the journal has cannot be read: {error}")
            raise
        self._vitals.clear("past")
        return found

    def stored(self, stream_id: int) -> int:
        return self._stored.get(stream_id, 0)

    def cursor_ahead(self, key: StreamKey, epoch: int, sequence: int) -> None:
        self.cursors_ahead += 1
        reason = (
            f"a client has seen {key} up to {min(sequence, MAX_SEQUENCE)} of epoch {epoch}, which is not here: "
            "is the disk an older copy?"
        )
        if self._vitals.has(CURSOR):
            return  # the first one says it
        self._vitals.set(CURSOR, State.DEGRADED, self._losses.told(reason))
        try:
            self._losses.note(CURSOR, reason)
        except (StorageError, DataError) as error:
            _LOG.error("what was lost could not be noted, so a restart forgets it: %s", error)

    def _slot(self, stream_id: int) -> int:
        slot = self._streams.slot(self._records[stream_id].key)
        assert slot is not None
        return slot

    def _view(self, slot: int, key: StreamKey) -> StreamView | None:
        head, latest = self._streams.kernel.committed(slot)
        stream_id = self._streams.kernel.stream_id(slot)
        if stream_id not in self._records:
            return None  # its first group is not committed yet
        self._follow_version1()
        if key.kind is not RowKind.CANDLE:
            latest //= 1_000_000
        return StreamView(key, stream_id, 1, head, latest, v1=key not in self._version1.shadowed)

    def _follow_version1(self) -> None:
        for slot in range(self._version1_known, len(self._streams)):
            self._version1.add(self._streams.key(slot))
        self._version1_known = len(self._streams)


class Watched:
    """A `StoreReader` that tells how each reading of the one behind it went, with the error or None: what fails may be
    answered by the journal all the same."""

    def __init__(self, store: StoreReader, read: Callable[[FluxError | None], None]) -> None:
        self._store = store
        self._read = read

    def read(
        self, stream_id: int, kind: RowKind, from_exclusive: int, to_inclusive: int, limit: int
    ) -> tuple[int, Rows]:
        with self._told():
            return self._store.read(stream_id, kind, from_exclusive, to_inclusive, limit)

    def sequence_range(
        self, stream_id: int, kind: RowKind, start_ms: int | None, end_ms: int | None
    ) -> tuple[int, int] | None:
        with self._told():
            return self._store.sequence_range(stream_id, kind, start_ms, end_ms)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (StorageError, DataError) as error:
            self._read(error)
            raise
        self._read(None)
