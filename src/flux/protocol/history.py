"""Whether a server that came back has the history that this client has.

A disk that was rolled back, or a version 1 server that began again at 1, gives the same numbers to other rows, and
nothing in a sequence shows it once the head has passed. So when the server's boot_id changed (version 1: at every
relink, and times, prices and volumes alone) the last row that came before is asked for again and compared byte for
byte. A difference is another history: what is kept is set aside and fetched anew. A row that is no longer kept proves
nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flux.limits import MAX_RELINK_ASKS
from flux.protocol.core import CONFLICT, Core
from flux.protocol.effects import Ask
from flux.protocol.replies import Page, PageStatus, Refusal, RefusalStatus
from flux.protocol.schedule import MS
from flux.protocol.stream_state import HOLDING, LIVE, NONE, WANTED, Stream

VERSION_1_FIELDS = ("ts_ms", "open", "high", "low", "close", "volume")
SURE = 3
"""Answers in a row that have this client ahead before it is believed: a row is published a moment before the
head that requests read moves."""
ANOTHER = "the server has another history: row {} is not the one that came before"


def want_all(core: Core, now: int) -> None:
    """Every stream that has rows wants a proof: the first ones at once, with rows held back until it is there; of very
    many the others one by one, at the pace of a request every millisecond."""
    asked = 0
    for slot, stream in core.streams.items():
        if stream.phase is LIVE and want(stream):
            asked += 1
            stream.proof = HOLDING if asked <= MAX_RELINK_ASKS else WANTED
            core.schedule.by(slot, now + max(0, asked - MAX_RELINK_ASKS) * MS)


def want(stream: Stream) -> bool:
    """Choose the row that is to be compared; False where there is none, or one is wanted already."""
    at = stream.left_at or stream.ring.contiguous
    stream.left_at = 0
    if stream.proof is not NONE or not len(_mine(stream, at)):
        return False
    stream.proof_at = at
    return True


def _mine(stream: Stream, at: int) -> Any:
    """A row as this client has it, in the ring or, at the cursor, of the cache: an array of one or none."""
    if stream.ring.first <= at <= stream.ring.contiguous:
        return stream.ring.window(at, at)
    if stream.proof_row is not None and stream.cursor is not None and stream.cursor.sequence == at:
        return stream.proof_row
    return ()


def settle(core: Core, stream: Stream, now: int) -> None:
    """The server's head is not behind: whether its rows are those that came before may still be open, after a conflict
    or after it was behind."""
    if stream.ahead >= SURE:
        stream.fault = ""
    if (stream.ahead or stream.suspect) and stream.proof is NONE:
        if want(stream):
            stream.proof = HOLDING
        else:
            done(core, stream, now)
    stream.ahead = 0


def want_of_cache(stream: Stream) -> None:
    """The row at the cursor, as the cache has it, is to be compared before anything is handed over."""
    if stream.proof_row is not None and stream.cursor is not None:
        stream.proof, stream.proof_at = HOLDING, stream.cursor.sequence


def proven(core: Core, stream: Stream, ask: Ask, page: Page, now: int) -> bool:
    """Judge the answer to a proof. False when it is about something else, which is judged as any page is."""
    if (
        page.store_id != stream.store_id
        or page.epoch != stream.epoch
        or page.status is PageStatus.CURSOR_AHEAD
    ):
        return False
    at = stream.proof_at
    mine = _mine(stream, at)
    if (
        len(page.rows)
        and page.start_sequence == at
        and len(mine)
        and not _same(mine, page.rows[:1], ask.version)
    ):
        another_history(core, stream, page, ANOTHER.format(at), now)
    else:
        done(core, stream, now)
    return True


def refused(core: Core, stream: Stream, refusal: Refusal, now: int) -> bool:
    """A refusal proves nothing, unless it is one that passes: then False."""
    if refusal.wrong_version or refusal.status in (
        RefusalStatus.UNAVAILABLE,
        RefusalStatus.RESOURCE_EXHAUSTED,
    ):
        return False
    done(core, stream, now)
    return True


def done(core: Core, stream: Stream, now: int) -> None:
    """Go on with the server's rows. A conflict that came meanwhile is one."""
    stream.proof = NONE
    if stream.suspect:
        stream.suspect = False
        stream.fault = CONFLICT.format(stream.key)
    core.offer(stream)
    core.progress(stream, now)


def another_history(core: Core, stream: Stream, page: Page, reason: str, now: int) -> None:
    """What is kept is of another history: fill the stream anew with the server's."""
    core.set_aside(stream, max(1, page.first_available_sequence), reason)
    stream.cursor = None
    stream.phase = LIVE
    core.raise_head(stream, page.watermark_sequence)
    stream.verify = True  # for the head, which a page of version 1 does not say
    core.schedule.by(stream.slot, now)


def _same(mine: Any, other: Any, version: int) -> bool:
    """Whether two arrays of one row are the same; version 1 carries some of the fields alone."""
    one, two = np.asarray(mine), np.asarray(other)
    if version >= 2 or one.dtype.names is None:
        return one.tobytes() == two.tobytes()
    return all(one[name].tobytes() == two[name].tobytes() for name in VERSION_1_FIELDS)
