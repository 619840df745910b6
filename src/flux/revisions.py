"""Rows in any order, revisions among them -> the last version of each, in order of time.

Of candles with the same time the last counts. A trade with CORRECTION counts for those of its id that came before: it
stands where the first of them with its own time stood, else where it came. Without an id (0) it replaces none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flux.model import CANDLE, TRADE, TradeFlag

Rows = npt.NDArray[np.void]
Numbers = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]


def latest(rows: Rows) -> Rows:
    """A copy of `rows` (CANDLE, TRADE or QUOTE) by time, equal times in order of arrival, without those that others
    replace; trades without CORRECTION."""
    times = rows["ts_ms"] if rows.dtype == CANDLE else rows["ts_ns"]
    if rows.dtype == TRADE:
        revising = ((rows["flags"] & np.uint32(TradeFlag.CORRECTION)) != 0) & (rows["trade_id"] != 0)
        if revising.any():
            return _revised(rows, revising)
    order = np.argsort(times, kind="stable")
    if rows.dtype == CANDLE:
        ascending = times[order]
        order = order[np.append(ascending[1:] != ascending[:-1], True)]
    return rows[order]


def _revised(rows: Rows, revising: Flags) -> Rows:
    """Each id's trades fall into versions: a correction and what comes without one until the next. The last counts."""
    places = np.arange(len(rows))
    some = np.flatnonzero(np.isin(rows["trade_id"], np.unique(rows["trade_id"][revising])))
    some = some[np.argsort(rows["trade_id"][some], kind="stable")]  # by id, each in order of arrival
    ids = rows["trade_id"][some]
    changes = ids[1:] != ids[:-1]
    begins, last = np.append(True, changes), np.append(changes, True)
    versions = np.cumsum(begins | revising[some], dtype=np.intp)
    of_id = np.cumsum(begins) - 1
    counts = np.ones(len(rows), np.bool_)
    counts[some] = versions == versions[last][of_id]
    first_versions = versions[begins][of_id]
    follows: Flags = revising[some] & (versions > first_versions)
    places[some] = _places(some, rows["ts_ns"][some], versions, follows)
    kept = np.flatnonzero(counts)
    made = rows[kept[np.lexsort((places[kept], rows["ts_ns"][kept]))]]
    made["flags"] &= ~np.uint32(TradeFlag.CORRECTION)
    return made


def _places(arrived: Numbers, times: npt.NDArray[np.int64], versions: Numbers, follows: Flags) -> Numbers:
    """Where trades stand in order of arrival: one that `follows` an earlier version, where that one's first trade of
    the same time stands, if there is any."""
    asking = np.flatnonzero(follows)
    count = len(arrived)
    version = np.concatenate([versions, versions[asking] - 1])
    time = np.concatenate([times, times[asking]])
    order = np.lexsort((np.arange(len(version)), time, version))  # those that are asked for before who asks
    begins = np.append(True, (np.diff(version[order]) != 0) | (np.diff(time[order]) != 0))
    firsts = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    found = np.empty(len(order), np.intp)
    found[order] = firsts
    source = np.arange(count)
    source[asking] = np.where(found[count:] < count, found[count:], asking)
    while not np.array_equal(source[source], source):
        source = source[source]
    return arrived[source]
