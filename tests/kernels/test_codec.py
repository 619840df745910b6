"""The codec kernel against its twin in plain Python, and against what flatc made."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flux import codec
from flux.errors import DecodeError
from flux.kernels import codec as kernel
from flux.model import CANDLE, ROW_DTYPES, RowKind, StreamKey
from flux.schema import messages
from tests.oracle import codec as oracle
from tests.unit.plain_codec import KEY, by_flatc, by_oracle, examples, ours

FRAMES = {f"{name}_v{version}": frame for version in (1, 2) for name, frame in examples(version).items()}

u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
u32 = st.integers(0, 2**32 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
keys = st.builds(StreamKey, names, names, st.sampled_from(["1m", "trade", "quote", "", "1M"]))


def outcome(frame: Any) -> Any:
    """What the kernel makes of a frame: a dict, or the reason of its refusal."""
    try:
        return ours(codec.decode(frame))
    except DecodeError as error:
        inside = 0 <= error.offset <= max(len(frame), 8)
        return error.reason if inside else f"{error.reason} outside the frame, at {error.offset}"


def expected(frame: bytes) -> Any:
    try:
        return by_oracle(frame)
    except oracle.Refused as refused:
        return refused.args[0]


def rows_of(data: st.DataObject, kind: RowKind) -> np.ndarray[Any, np.dtype[np.void]]:
    dtype = ROW_DTYPES[kind]
    n = data.draw(st.integers(0, 40))
    raw = data.draw(st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize)) * n
    return np.frombuffer(raw, dtype, n)


@pytest.mark.parametrize("name", FRAMES)
def test_each_message_reads_the_same_in_kernel_oracle_and_flatc(name: str) -> None:
    frame = FRAMES[name]
    assert outcome(frame) == by_oracle(frame) == by_flatc(frame)


@given(st.data(), keys, u64, u64, i64, i64, u32, u32, st.integers(0, 7))
def test_encoded_rows_decode_with_flatc_and_oracle(
    data: st.DataObject,
    key: StreamKey,
    start: int,
    store: int,
    origin: int,
    recorded: int,
    epoch: int,
    stream: int,
    offset: int,
) -> None:
    rows = rows_of(data, key.kind)
    frame = codec.encode(
        rows,
        key,
        start,
        store_id=store,
        origin_ns=origin,
        recorded_ns=recorded,
        epoch=epoch,
        stream_id=stream,
    )
    assert isinstance(frame, bytes)
    batch = codec.decode(memoryview(b"\xff" * offset + frame)[offset:])
    assert batch.rows.tobytes() == rows.tobytes()
    assert (batch.key, batch.start_sequence, batch.store_id) == (key, start, store)
    assert ours(batch) == by_flatc(frame) == by_oracle(frame)
    assert frame[-4:] == oracle.crc32c(frame[:-4]).to_bytes(4, "little")


@given(st.data(), names, names, u64)
def test_version_1_candles_decode_with_flatc_and_oracle(
    data: st.DataObject, source: str, symbol: str, start: int
) -> None:
    key = StreamKey(source, symbol, "1m")
    rows = rows_of(data, RowKind.CANDLE)
    frame = codec.encode(rows, key, start, version=1)
    assert isinstance(frame, bytes)
    assert outcome(frame) == by_flatc(frame) == by_oracle(frame)
    batch = codec.decode(frame)
    assert np.ascontiguousarray(batch.rows).view(np.uint8).reshape(-1, 64)[:, :48].tobytes() == (
        np.ascontiguousarray(rows).view(np.uint8).reshape(-1, 64)[:, :48].tobytes()
    )
    assert (batch.rows["flags"] == 1).all()
    assert not batch.rows["turnover"].any()
    assert not batch.rows["trade_count"].any()


@given(st.data(), keys, st.booleans(), st.booleans(), st.none() | names, u64, u64)
def test_backfill_replies_decode_with_flatc_and_oracle(
    data: st.DataObject,
    key: StreamKey,
    old: bool,
    more: bool,
    correlation: str | None,
    start: int,
    other: int,
) -> None:
    rows = rows_of(data, key.kind)
    if old and key.kind == RowKind.CANDLE:
        frame = codec.encode_backfill(
            key, start, rows, version=1, has_more=more, next_sequence=other, correlation_id=correlation
        )
    else:
        frame = codec.encode_backfill(
            key, start, rows, has_more=more, store_id=other, status=3, correlation_id=correlation
        )
    reply = codec.decode(frame)
    assert ours(reply) == by_flatc(frame) == by_oracle(frame)
    assert reply.correlation_id == correlation
    assert len(reply.rows) == len(rows)


def damaged(data: st.DataObject, frame: bytes) -> bytes:
    """A frame with a few bytes changed, words replaced, or its end cut off; its checksum made right again."""
    checked = frame[4:8] == b"FLX2"
    body = bytearray(frame[:-4] if checked else frame)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[at] = data.draw(st.integers(0, 255))
        else:
            word = data.draw(st.sampled_from([0, 1, 2, 4, 8, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000]) | u32)
            at -= at % 4
            body[at : at + 4] = struct.pack("<I", word)[: len(body) - at]
    if data.draw(st.booleans()):
        del body[data.draw(st.integers(0, len(body))) :]
    return bytes(body) + (oracle.crc32c(bytes(body)).to_bytes(4, "little") if checked else b"")


@settings(max_examples=1000, deadline=None)
@given(st.data(), st.sampled_from(sorted(FRAMES)))
def test_damaged_frames_are_judged_as_the_oracle_judges_them(data: st.DataObject, name: str) -> None:
    frame = damaged(data, FRAMES[name])
    assert outcome(frame) == expected(frame)


# Every byte that decides something in UTF-8: leads, the bounds of what may follow them, surrogates.
utf8_bytes = st.sampled_from(
    bytes.fromhex("00 41 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f4 f5 ff")
)


@settings(max_examples=500)
@given(
    st.lists(utf8_bytes, max_size=14).map(bytes) | st.text(max_size=6).map(lambda text: text.encode()[:14])
)
@example(b"\xed\xa0\x80")  # a surrogate
@example(b"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf")
@example(b"\xf4\x90\x80\x80")
@example(b"\xe0\x9f\xbf")
@example(b"abcdefgh\xf0\x8f\xbf\xbf")
def test_a_name_is_utf8_as_python_and_rust_have_it(name: bytes) -> None:
    frame = codec.encode(np.zeros(1, CANDLE), StreamKey("S", "X" * len(name), "1m"), version=1)
    assert isinstance(frame, bytes)
    length = len(name).to_bytes(4, "little")
    frame = frame.replace(length + b"X" * len(name) + b"\0", length + name + b"\0", 1)
    assert outcome(frame) == expected(frame)


@settings(max_examples=500)
@given(st.integers(1, 6), st.data())
def test_a_candle_table_may_stand_anywhere_that_is_right(n: int, data: st.DataObject) -> None:
    # One table is moved: same vtable, another place. What is remembered of a vtable must not vouch for it.
    frame = bytearray(codec.encode(np.zeros(n, CANDLE), KEY, version=1))
    reader = oracle.Reader(bytes(frame))
    message = reader.table(reader.item(0, "<I"))[4]
    items, _ = reader.vector(reader.table(message + reader.item(message, "<I"))[2], 4, 4)
    which = items + 4 * data.draw(st.integers(0, n - 1))
    table = items + reader.item(items, "<I")
    vtable = table - reader.item(table, "<i")
    frame += bytes(data.draw(st.integers(0, 64)))
    place = 4 * data.draw(st.integers(-(-(vtable + 16) // 4), (len(frame) - 4) // 4))
    struct.pack_into("<I", frame, which, place - which)
    struct.pack_into("<i", frame, place, place - vtable)
    assert outcome(frame) == expected(bytes(frame))


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"\x04\0\0\0\x04\0\0\0")  # a root whose vtable is its own first bytes: the smallest frame there is
@example(b"\x08\0\0\0FLX2\0\0\0\0")
def test_any_bytes_are_judged_as_the_oracle_judges_them(frame: bytes) -> None:
    assert outcome(frame) == expected(frame)


@pytest.mark.parametrize("name", [name for name in FRAMES if name.endswith("v2")])
def test_one_flipped_bit_anywhere_in_a_version_2_frame_is_a_checksum(name: str) -> None:
    frame = bytearray(FRAMES[name])
    for bit in range(len(frame) * 8):
        frame[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError) as caught:
            codec.decode(frame)
        assert caught.value.reason == "checksum", bit
        frame[bit // 8] ^= 1 << bit % 8


@given(st.data(), st.sampled_from(["1m", "trade", "quote"]), u64, u64)
def test_a_frame_of_a_known_head_needs_no_second_verification(
    data: st.DataObject, interval: str, start: int, store: int
) -> None:
    key = StreamKey("SIM", "BTCUSDT", interval)
    encoder = codec.Encoder(key)
    first = encoder.encode(rows_of(data, key.kind), 1)
    frame = encoder.encode(rows_of(data, key.kind), start, store_id=store, epoch=5)
    assert kernel.matches(first, frame) == 1
    at = data.draw(st.integers(0, len(frame) - 1))
    wrong = bytearray(frame)
    wrong[at] ^= data.draw(st.integers(1, 255))
    assert kernel.matches(first, wrong) in (0, -1)
    assert kernel.matches(first, frame[:-1]) in (0, -1)
    assert kernel.matches(first, frame + b"\0") == -1
    other = codec.encode(rows_of(data, key.kind), key._replace(symbol="BTCUSDC"), 1)
    assert kernel.matches(first, other) == 0


def test_nothing_is_learned_from_a_head_that_is_not_ours() -> None:
    for name, frame in FRAMES.items():
        ours_too = name.startswith(("candle_row", "trade_row", "quote_row"))
        assert kernel.matches(frame, frame) == (1 if ours_too else -2), name


@given(st.binary(max_size=9000), u32, st.integers(0, 7))
def test_both_ways_of_the_checksum_give_the_same_bits(data: bytes, value: int, offset: int) -> None:
    view = memoryview(data)[offset:]
    right = kernel.crc32c_table(view, value)
    assert kernel.crc32c(view, value) == right
    if kernel.crc32c_in_hardware():
        assert kernel.crc32c_hardware(view, value) == right
    half = len(view) // 3
    assert kernel.crc32c(view[half:], kernel.crc32c(view[:half], value)) == right
    if len(view) < 300:
        assert oracle.crc32c(bytes(view), value) == right


def test_the_checksum_at_every_size_across_the_lanes() -> None:
    data = np.random.default_rng(3).bytes(7000)
    for size in [*range(700), *range(3000, 3200), 6143, 6144, 6145]:
        assert kernel.crc32c(data[:size]) == kernel.crc32c_table(data[:size])
    assert kernel.crc32c(b"123456789") == 0xE3069283


def shared_records(count: int) -> bytes:
    """A GapListResponse of `count` records that are all one, with a key whose name is 60,000 bytes long."""
    record = codec.GapRecord(StreamKey("S" * 60_000, "X", "1m"), 1, 2, 3, 4, 5, 6, 7)
    frame = messages.gap_list_response(gaps=[record])[:-4]
    reader = oracle.Reader(frame)
    message = reader.table(reader.item(0, "<I"))[4]
    gaps = reader.table(message + reader.item(message, "<I"))[0]
    items, _ = reader.vector(gaps, 4, 4)
    target = items + reader.item(items, "<I")
    # uoffsets only go forward, so the longer vector grows in place and all behind it moves by whole 8 bytes
    room = 8 * count
    grown = bytearray(frame[:items] + bytes(room) + frame[items:])
    for i in range(count):
        struct.pack_into("<I", grown, items + 4 * i, target + room - (items + 4 * i))
    struct.pack_into("<I", grown, items - 4, count)
    return bytes(grown) + kernel.crc32c(grown).to_bytes(4, "little")


def test_shared_offsets_cannot_make_work_without_bound() -> None:
    assert len(codec.decode(shared_records(100)).gaps) == 100  # shared offsets are fine
    with pytest.raises(DecodeError, match="verify"):
        codec.decode(shared_records(60_000))  # 3.6 GB to look at
    with pytest.raises(DecodeError, match="verify"):
        codec.decode(shared_records(70_000))


def test_example_frames_keep_their_key() -> None:
    assert codec.decode(FRAMES["candle_row_batch_v2"]).key == KEY
