"""What the integers of a message may say, beyond their width: judged once, by whoever takes a message from a peer.

`decode` believes every value that fits its slot. Arithmetic does not: a sequence of 2^64-1 has no next one, a stream_id
of 2^32-1 is no index. So a server judges each request of version 2 and a client each reply and heartbeat before
anything is worked out from it. Requests of version 1 are answered as they always were (their slots are bounded where
they are read), and of its replies `next_sequence` is not looked at.
"""

from __future__ import annotations

from typing import Any, Final

from flux.codec.messages import BackfillRowsResponse
from flux.limits import MAX_HEARTBEAT_INTERVAL_MS, MAX_STREAM_ID
from flux.model import MAX_SEQUENCE

_HIGHEST: Final[dict[str, int]] = {
    "from_sequence_exclusive": MAX_SEQUENCE,
    "start_sequence": MAX_SEQUENCE,
    "latest_sequence": MAX_SEQUENCE,
    "first_sequence": MAX_SEQUENCE,
    "last_sequence": MAX_SEQUENCE,
    "after_sequence": MAX_SEQUENCE,
    "first_available_sequence": MAX_SEQUENCE,
    "watermark_sequence": MAX_SEQUENCE,
    "epoch_end_sequence": MAX_SEQUENCE,
    "committed": MAX_SEQUENCE,
    "stream_id": MAX_STREAM_ID,
    "after_stream_id": MAX_STREAM_ID,
    "interval_ms": MAX_HEARTBEAT_INTERVAL_MS,
}
_LAST_PAGE_STATUS: Final = 4
_LOWEST: Final[dict[str, int]] = {"interval_ms": 1}
_NESTED: Final = ("cursor", "streams", "gaps")


def beyond_bounds(message: Any) -> str:
    """The name of a slot whose value cannot be meant; "" when there is none. `message` is what `decode` gave."""
    if isinstance(message, BackfillRowsResponse) and (slot := _contradicting(message)):
        return slot
    names = getattr(message, "__slots__", ()) or getattr(message, "_fields", ())
    for name in names:
        value = getattr(message, name)
        if name in _HIGHEST and not _LOWEST.get(name, 0) <= value <= _HIGHEST[name]:
            return str(name)
        if name in _NESTED and value is not None:
            items = value if isinstance(value, list) else (value,)
            for item in items:
                if found := beyond_bounds(item):
                    return f"{name}.{found}"
    return ""


def _contradicting(page: BackfillRowsResponse) -> str:
    """A slot of a page that is none of its kind, or says other than those beside it; a watermark of 0 says nothing."""
    count = len(page.rows) if page.zstd is None else page.row_count
    last = page.start_sequence + count - 1
    if page.status > _LAST_PAGE_STATUS:
        return "status"
    if page.store_id and not page.epoch:  # the first epoch of a store is 1
        return "epoch"
    if page.rows_epoch > page.epoch:
        return "rows_epoch"
    if count and 0 < page.watermark_sequence < last:
        return "watermark_sequence"
    if count and page.has_more and page.watermark_sequence == last:
        return "has_more"
    return ""
