"""What the journal's records say: round trips, and what a newer or a damaged one gets."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.errors import DataError
from flux.journal.records import (
    FORMAT,
    EpochRecord,
    HeadsRecord,
    SourceRecord,
    StreamHead,
    StreamRecord,
    feed_name,
    pack,
    unpack,
)
from flux.model import StreamKey

IDS = st.integers(0, 2**32 - 1)
SEQUENCES = st.integers(0, 2**63 - 1)
SIGNED = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text("ABCxyz019/|! ~", min_size=1, max_size=64)
POSITIONS = st.tuples(SEQUENCES, st.integers(0, 2**32 - 1))

STREAMS = st.builds(StreamRecord, IDS, NAMES, NAMES, NAMES)
SOURCES = st.builds(SourceRecord, NAMES, POSITIONS)
EPOCHS = st.builds(EpochRecord, IDS, st.dictionaries(IDS, SEQUENCES, max_size=5), st.text(max_size=20))
HEADS = st.builds(
    HeadsRecord,
    st.just(FORMAT),
    st.integers(1, 2**63 - 1),
    IDS,
    st.lists(st.builds(StreamHead, STREAMS, SEQUENCES, SIGNED, SIGNED, SEQUENCES), max_size=5),
    st.lists(EPOCHS, max_size=3),
    st.dictionaries(NAMES, POSITIONS, max_size=5),
)


@given(st.one_of(STREAMS, SOURCES, EPOCHS, HEADS))
def test_round_trip(record: StreamRecord | SourceRecord | EpochRecord | HeadsRecord) -> None:
    assert unpack(memoryview(pack(record)), type(record)) == record


def test_a_streams_key() -> None:
    assert StreamRecord(1, "SIM", "BTC/USDT", "1m").key == StreamKey("SIM", "BTC/USDT", "1m")


def test_a_newer_format_says_what_to_install() -> None:
    """Whatever else stands in it: the format comes first."""
    body = msgspec.msgpack.encode([FORMAT + 1, {"quite": "another"}])
    with pytest.raises(DataError, match=f"format {FORMAT + 1}.*upgrade flux-marketdata") as caught:
        unpack(body, HeadsRecord)
    assert caught.value.exit_code == 4


NO_HEADS = [b"", b"\xc1", pack(SourceRecord("x", (1, 2))), msgspec.msgpack.encode([]), b"\x91\xa1x"]


@pytest.mark.parametrize("body", NO_HEADS)
def test_what_is_no_heads_record(body: bytes) -> None:
    with pytest.raises(DataError, match="HeadsRecord of the journal does not read"):
        unpack(body, HeadsRecord)


@given(st.binary(max_size=60), st.sampled_from([StreamRecord, SourceRecord, EpochRecord, HeadsRecord]))
def test_any_bytes_are_a_record_or_a_data_error(body: bytes, kind: type) -> None:
    with suppress(DataError):
        assert isinstance(unpack(body, kind), kind)


def test_a_feeds_run_has_a_name_of_its_own() -> None:
    assert len({feed_name("A", 1), feed_name("A", 2), feed_name("B", 1)}) == 3
