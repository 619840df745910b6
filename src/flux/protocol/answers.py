"""What the server's answers mean for a stream. Each function takes one kind of answer and moves the core."""

from __future__ import annotations

from flux.limits import V1_POLL_MS
from flux.protocol import history
from flux.protocol.core import VERIFY_NS, Core
from flux.protocol.effects import Ask, AskKind, Speak
from flux.protocol.history import SURE
from flux.protocol.repair import begin_at
from flux.protocol.replies import Page, PageStatus, Refusal, RefusalStatus, Reply, Status, TimedOut
from flux.protocol.schedule import MS
from flux.protocol.stream_state import ENDING, JOINING, LIVE, Stream

_REFUSED = 5
"""Refusals in a row after which a v1 server's hole counts as lost: it has no other way to say so."""


def answered(core: Core, stream: Stream, ask: Ask, reply: Reply, now: int) -> None:
    """Take the answer to `stream`'s request."""
    if isinstance(reply, TimedOut):
        core.retry(stream, now)
    elif isinstance(reply, Refusal):
        _refused(core, stream, ask, reply, now)
    elif isinstance(reply, Status) and ask.kind is AskKind.STATUS:
        _status(core, stream, reply, now)
    elif isinstance(reply, Page) and ask.kind is AskKind.ROWS:
        stream.claim = False
        _page(core, stream, ask, reply, now)
    elif isinstance(reply, Page) and ask.kind is AskKind.PROOF:
        if not history.proven(core, stream, ask, reply, now):
            _page(core, stream, ask, reply, now)
    else:
        core.retry(stream, now)
    if core.version == 1 and not core.schedule.pending(stream.slot):
        core.schedule.by(stream.slot, now + V1_POLL_MS * MS)


def _status(core: Core, stream: Stream, status: Status, now: int) -> None:
    stream.known = True
    core.unknown.pop(stream.slot, None)
    core.identify(stream, status.stream_id)
    stream.verified_ns = now
    stream.verify = False
    if stream.phase is JOINING:
        _join(core, stream, status, now)
    elif status.store_id != stream.store_id:
        core.set_aside(
            stream, max(1, status.first_sequence), _another_store(stream.store_id, status.store_id)
        )
        _go(core, stream, status, now)
    elif status.epoch > stream.epoch:
        stream.phase = ENDING
        core.progress(stream, now)
    elif status.epoch < stream.epoch:
        # An answer from before the restart; epochs of a store never go back.
        stream.verify = True
        core.retry(stream, now)
    elif _claimed(stream) > status.latest_sequence:
        _ahead(core, stream, status.latest_sequence, now)
    else:
        stream.phase = LIVE
        history.settle(core, stream, now)
        core.raise_head(stream, status.latest_sequence)
        core.progress(stream, now)


def _another_store(mine: int, now: int) -> str:
    return f"the server has another store: {now:016x}, and what came before is of {mine:016x}"


def _claimed(stream: Stream) -> int:
    """The highest sequence this client can show rows for: a start in the future is no claim."""
    reached = stream.ring.contiguous
    return reached if reached >= stream.begin or stream.cursor is not None else 0


def _join(core: Core, stream: Stream, status: Status, now: int) -> None:
    begin = begin_at(stream.start, stream.cursor, status)
    stream.begin = begin.first
    stream.open_start = begin.open_start
    if begin.aside:
        kept = 0 if stream.cursor is None else stream.cursor.store_id
        core.set_aside(stream, begin.first, _another_store(kept, status.store_id))
    elif stream.ring.first != begin.first:
        core.restart(stream, begin.first)
    if begin.ended:
        stream.phase = ENDING
        core.progress(stream, now)
    elif begin.ahead:
        _ahead(core, stream, status.latest_sequence, now)
    else:
        _go(core, stream, status, now)


def _go(core: Core, stream: Stream, status: Status, now: int) -> None:
    core.expect(stream, status.store_id, status.epoch)
    stream.phase = LIVE
    stream.ahead = 0
    history.want_of_cache(stream)
    core.raise_head(stream, status.latest_sequence)
    core.offer(stream)
    core.progress(stream, now)


def _ahead(core: Core, stream: Stream, latest: int, now: int, *, shown: bool = False) -> None:
    """The server's head is below rows this client has. A status is asked for without a cursor: the server, which has to
    know of it, is `shown` that once it is sure.
    """
    stream.ahead += 1
    stream.verify = True
    if stream.ahead < SURE:
        core.retry(stream, now)
    elif core.version == 1:
        # A v1 server knows no epochs: it was started anew and counts from 1.
        core.set_aside(stream, 1, "the server started anew")
        stream.cursor = None
        stream.phase = LIVE
        core.raise_head(stream, latest)
        core.progress(stream, now)
    else:
        stream.fault = (
            f"{stream.key}: the server ends at {latest}, before this client's {stream.ring.contiguous}: "
            "its disk was rolled back; call resync(key)"
        )
        # Only a new epoch can put this right by itself, so it is still looked for, slowly.
        core.retry(stream, now, at_least_ms=5 * VERIFY_NS // MS)
        if not shown:
            stream.claim = True
            core.schedule.by(stream.slot, now)


def _page(core: Core, stream: Stream, ask: Ask, page: Page, now: int) -> None:
    if page.store_id != stream.store_id:
        core.doubt(stream, now)
        core.retry(stream, now)
    elif page.status is PageStatus.EPOCH_ENDED and page.epoch > stream.epoch:
        core.rewind(stream, page.epoch_end_sequence)
        core.expect(stream, page.store_id, page.epoch)
        stream.phase = LIVE
        stream.fault = ""
        stream.ahead = 0
        core.raise_head(stream, page.watermark_sequence)
        core.offer(stream)
        core.progress(stream, now)
        # The head comes with the status if not with this page.
        core.doubt(stream, now)
    elif page.epoch != stream.epoch or stream.phase is ENDING:
        core.doubt(stream, now)
        core.retry(stream, now)
    elif page.status is PageStatus.CURSOR_AHEAD:
        _ahead(core, stream, page.watermark_sequence, now, shown=True)
    elif page.status in (PageStatus.RETENTION_EXCEEDED, PageStatus.HOLE):
        _lost(core, stream, page, now)
    else:
        _rows(core, stream, ask, page, now)


def _lost(core: Core, stream: Stream, page: Page, now: int) -> None:
    """The server says that rows up to first_available_sequence - 1 will never come."""
    first = page.first_available_sequence
    core.raise_head(stream, page.watermark_sequence)
    if first <= stream.ring.contiguous + 1:
        core.retry(stream, now)
        return
    stream.failures = 0
    if stream.open_start and stream.ring.contiguous < stream.begin:
        stream.begin = first
        core.restart(stream, first)
        core.progress(stream, now)
        return
    reason = "retention" if page.status is PageStatus.RETENTION_EXCEEDED else "hole"
    core.give_up(stream, first - 1, reason, now)


def _rows(core: Core, stream: Stream, ask: Ask, page: Page, now: int) -> None:
    ring = stream.ring
    core.raise_head(stream, page.watermark_sequence)
    stream.from_oldest = False
    count = len(page.rows)
    if count == 0:
        core.retry(stream, now)
        return
    skips = page.start_sequence > ask.from_sequence + 1 and ring.contiguous < page.start_sequence - 1
    if skips and stream.open_start and ring.contiguous < stream.begin:
        stream.begin = page.start_sequence
        core.restart(stream, page.start_sequence)
    elif skips and ask.version == 1:
        # How a v1 server says that it no longer keeps what was asked for.
        core.give_up(stream, page.start_sequence - 1, "retention", now)
        if stream.gap is not None:
            return
    before = ring.contiguous
    placed = ring.place(page.start_sequence, page.rows).placed
    stream.was_numbered(page.start_sequence + count - 1, page.rows_epoch)
    core.raise_head(stream, page.start_sequence + count - 1 if placed else 0)
    core.offer(stream)
    if placed or ring.contiguous > before:
        core.progress(stream, now)
    elif core.behind(stream):
        core.retry(stream, now)
    else:
        stream.failures = 0  # the rows came by another way meanwhile


def _refused(core: Core, stream: Stream, ask: Ask, refusal: Refusal, now: int) -> None:
    if ask.kind is AskKind.PROOF and history.refused(core, stream, refusal, now):
        return
    if refusal.wrong_version:
        other_version(core, ask, now)
        core.schedule.at(stream.slot, now)
    elif refusal.not_found:
        _unknown(core, stream, refusal, now)
    elif refusal.status == RefusalStatus.INVALID_ARGUMENT:
        stream.fault = f"{stream.key}: {refusal.message}"
        stream.halted = True
    else:
        core.retry(stream, now, refusal.retry_after_ms)
        if ask.version == 1 and ask.kind is AskKind.ROWS and stream.failures >= _REFUSED:
            _refused_for_good(core, stream, refusal, now)


def _refused_for_good(core: Core, stream: Stream, refusal: Refusal, now: int) -> None:
    """A v1 server has no other way to say that rows are lost: go on with what is here, else with its
    oldest.
    """
    stream.failures = 0
    if stream.ring.contiguous < stream.ring.top:
        core.give_up(stream, int(stream.ring.gaps()[0][1]), f"refused: {refusal.message}", now)
    else:
        stream.from_oldest = True


def _unknown(core: Core, stream: Stream, refusal: Refusal, now: int) -> None:
    """The server does not know the stream: it may come, and then begins at 1, since nothing was there at the
    join.
    """
    stream.known = False
    core.unknown[stream.slot] = refusal.message
    if stream.start is None:
        stream.start = 1
    core.retry(stream, now, at_least_ms=1_000)


def other_version(core: Core, ask: Ask, now: int) -> None:
    """The server does not speak the version of `ask`: fall back to 1 once; below that there is nothing."""
    if ask.version == 1:
        reason = "the server speaks neither schema 2 nor 1: install a matching flux on one side"
        core.fail(reason, now, wrong_version=True)
    elif core.version == 2:
        core.version = 1
        core.effects.append(Speak(1))
