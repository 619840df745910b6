"""The sequencer: which sequences the admitted rows get, and which streams may be made.

What is ordinary is numbered at head + 1 in compiled code (`number` of the bridge, `tests/oracle/sequencer.py` says it
again in Python); what is not, a new stream, is decided here one by one. No socket, no clock, no file.
"""

from __future__ import annotations

from flux.errors import InvalidNameError
from flux.limits import MAX_STREAMS
from flux.model import RowKind, StreamKey


def refusal(key: tuple[bytes, bytes, bytes], kind: int, streams: int) -> StreamKey | str:
    """The key of a stream that may be made, or why it may not: one word for a counter, and what was wrong."""
    try:
        made = StreamKey(*(part.decode("ascii") for part in key)).checked()
    except UnicodeDecodeError:
        return "name: not ASCII"
    except InvalidNameError as error:
        return f"name: {error}"
    if made.kind != (RowKind.CANDLE if kind == RowKind.CANDLE_V1 else kind):
        return f"kind: a stream of {made.interval} does not carry {RowKind(kind).name.lower()} rows"
    if streams >= MAX_STREAMS:
        return f"streams: {MAX_STREAMS} is the limit"
    return made
