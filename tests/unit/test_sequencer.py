"""The sequencer: dense sequences from 1, whatever arrives in whatever order; and which streams may be made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.limits import MAX_STREAMS
from flux.model import ARRIVAL, MAX_SEQUENCE, RowKind, StreamKey
from flux.protocol.sequencer import refusal
from flux.transport.pump import Streams
from tests.numbered import number

TURNS = st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=12), max_size=5)


def arrivals(turn: list[tuple[int, int]]) -> np.ndarray:
    found = np.zeros(len(turn), ARRIVAL)
    found["stream"], found["rows"] = [s for s, _ in turn], [n for _, n in turn]
    found["at"] = np.arange(len(turn)) * 1_000
    found["origin_ns"] = np.arange(len(turn)) + 1
    return found


def streams_at(heads: list[int]) -> Streams:
    streams = Streams(len(heads))
    for slot, head in enumerate(heads):
        streams.add(StreamKey("SIM", f"S{slot}", "1m"), stream_id=slot + 1, ring_rows=16)
        streams.kernel.restore(slot, head, 0, 0)
    return streams


@given(TURNS, st.lists(st.integers(0, 1_000), min_size=5, max_size=5))
def test_dense_behind_the_head_and_in_order_of_arrival(
    turns: list[list[tuple[int, int]]], heads: list[int]
) -> None:
    """By the compiled code, against what is said here in a line; `number` holds it against its oracle too."""
    expected = list(heads)
    for turn in turns:
        runs = number(streams_at(expected), arrivals(turn))
        plain = []
        for i, (stream, rows) in enumerate(turn):
            if rows:
                plain.append((stream, rows, i * 1_000, expected[stream] + 1, i + 1))
                expected[stream] += rows
        plain.sort(key=lambda run: run[0])  # stable: in order of arrival within a stream
        assert runs.tolist() == plain


def test_of_many_streams_each_has_its_own_head() -> None:
    runs = number(streams_at(list(range(200))), arrivals([(199, 1), (3, 2)]))
    assert runs["first"].tolist() == [4, 200]


def test_the_last_sequence_there_is() -> None:
    runs = number(streams_at([MAX_SEQUENCE - 2]), arrivals([(0, 2)]))
    assert runs["first"].tolist() == [MAX_SEQUENCE - 1]


class TestRefusal:
    def test_a_key_that_may_be(self) -> None:
        assert refusal((b"SIM", b"NSE_INDEX|Nifty 50", b"1m"), RowKind.CANDLE, 0) == StreamKey(
            "SIM", "NSE_INDEX|Nifty 50", "1m"
        )
        assert refusal((b"SIM", b"X", b"1m"), RowKind.CANDLE_V1, 0) == StreamKey("SIM", "X", "1m")
        assert refusal((b"SIM", b"X", b"quote"), RowKind.QUOTE, MAX_STREAMS - 1) == StreamKey(
            "SIM", "X", "quote"
        )

    @pytest.mark.parametrize(
        ("key", "kind", "streams", "why"),
        [
            ((b"SIM", b"\xff", b"1m"), RowKind.CANDLE, 0, "name: not ASCII"),
            ((b"SIM", "é".encode(), b"1m"), RowKind.CANDLE, 0, "name: not ASCII"),
            ((b"", b"X", b"1m"), RowKind.CANDLE, 0, "name: source"),
            ((b"S" * 33, b"X", b"1m"), RowKind.CANDLE, 0, "name: source"),
            ((b"SIM", b"a\nb", b"1m"), RowKind.CANDLE, 0, r"name: symbol 'a\nb'"),
            ((b"SIM", b"a\x1b[31m", b"1m"), RowKind.CANDLE, 0, r"name: symbol 'a\x1b[31m'"),
            ((b"SIM", b"\x00", b"1m"), RowKind.CANDLE, 0, r"name: symbol '\x00'"),
            ((b"SIM", b"x" * 10_000, b"1m"), RowKind.CANDLE, 0, "name: symbol 'xxx"),
            ((b"SIM", b"X", b"7m"), RowKind.CANDLE, 0, "name: interval '7m'"),
            (
                (b"SIM", b"X", b"trade"),
                RowKind.CANDLE,
                0,
                "kind: a stream of trade does not carry candle rows",
            ),
            ((b"SIM", b"X", b"1m"), RowKind.QUOTE, 0, "kind: a stream of 1m does not carry quote rows"),
            ((b"SIM", b"X", b"1m"), RowKind.CANDLE, MAX_STREAMS, f"streams: {MAX_STREAMS} is the limit"),
        ],
    )
    def test_one_that_may_not_and_why(
        self, key: tuple[bytes, bytes, bytes], kind: int, streams: int, why: str
    ) -> None:
        said = refusal(key, kind, streams)
        assert isinstance(said, str)
        assert said.startswith(why)
        assert said.isprintable()
        assert len(said) < 400
