"""The codec's door: what it takes, what it refuses, what it loads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard

from flux import codec
from flux.errors import DecodeError, EncodeError
from flux.limits import MAX_FRAME_BYTES, MAX_HEAD_BYTES, MAX_LIVE_ROWS
from flux.model import CANDLE, TRADE, StreamKey
from tests.unit.plain_codec import KEY, examples, sample


def refused(call: Callable[[], Any]) -> tuple[str, int]:
    with pytest.raises(DecodeError) as caught:
        call()
    return caught.value.reason, caught.value.offset


@pytest.mark.parametrize("size", [0, 3, 7])
def test_a_short_frame(size: int) -> None:
    assert refused(lambda: codec.decode(bytes(size))) == ("short", size)


def test_a_frame_over_the_limit() -> None:
    assert refused(lambda: codec.decode(bytes(MAX_FRAME_BYTES + 1))) == ("size", MAX_FRAME_BYTES)


def test_a_wrong_checksum_is_found_at_the_checksum() -> None:
    frame = codec.encode(sample(CANDLE, 1), KEY)
    assert isinstance(frame, bytes)
    assert refused(lambda: codec.decode(frame[:-1] + b"\0")) == ("checksum", len(frame) - 4)
    batch = codec.decode(frame[:-1] + b"\0", verify=False)
    assert batch.key == KEY
    assert refused(lambda: codec.decode(b"\xff" * 4 + frame[4:], verify=False))[0] == "verify"


def test_a_version_2_message_without_its_identifier_is_a_checksum() -> None:
    for name, frame in examples(2).items():
        bare = frame[:4] + b"\0\0\0\0" + frame[8:-4]
        if codec.decode(frame).message_type >= 13:
            assert refused(lambda bare=bare: codec.decode(bare))[0] == "checksum", name
        else:
            assert codec.decode(bare).schema_version == 2, name


def test_any_schema_version_and_any_tag_is_shown() -> None:
    frame = bytearray(codec.encode(sample(CANDLE, 1), KEY)[:-4])
    assert frame[28:32] == b"\2\0\0\0"  # schema_version, type_hint and tag stand here in what we encode
    assert frame[36:38] == bytes([12, 13])
    frame[28:32], frame[36:38] = b"\xff" * 4, bytes([0xFE, 99])
    message = codec.decode(frame + codec.crc32c(frame).to_bytes(4, "little"))
    assert type(message) is codec.Unknown
    assert (message.message_type, message.type_hint, message.schema_version) == (99, -2, 2**32 - 1)
    assert message.correlation_id is None
    assert repr(message) == "Unknown()"


def test_encode_takes_only_rows_of_the_stream() -> None:
    encoder = codec.Encoder(KEY)
    for wrong, reason in [
        ([1, 2], "numpy array"),
        (np.zeros(3), "dtype float64"),
        (np.zeros(3, TRADE), "this stream's are"),
        (np.zeros((2, 2), CANDLE), "2 dimensions"),
        (np.zeros(3, CANDLE.newbyteorder(">")), "this stream's are"),
        (np.zeros(MAX_FRAME_BYTES // 64, CANDLE), "more than a frame"),
    ]:
        with pytest.raises(EncodeError, match=reason):
            encoder.encode(wrong)  # type: ignore[arg-type]  # what is refused here
    with pytest.raises(OverflowError):
        encoder.encode(np.zeros(1, CANDLE), -1)


def test_rows_may_have_gaps_between_them() -> None:
    rows = sample(CANDLE, 20)
    assert codec.encode(rows[::3], KEY) == codec.encode(rows[::3].copy(), KEY)


def test_encode_into_a_buffer() -> None:
    rows = sample(CANDLE, 3)
    frame = codec.encode(rows, KEY, 9)
    assert isinstance(frame, bytes)
    room = bytearray(1000)
    assert codec.encode(rows, KEY, 9, out=memoryview(room)[3:]) == len(frame)
    assert room[3 : 3 + len(frame)] == frame
    assert not any(room[3 + len(frame) :])
    with pytest.raises(EncodeError, match="out has 10 bytes"):
        codec.encode(rows, KEY, 9, out=bytearray(10))
    with pytest.raises(BufferError):
        codec.encode(rows, KEY, 9, out=frame)


def test_names_that_do_not_fit_a_head() -> None:
    longest = StreamKey("S" * 32, "X" * 64, "trade")
    frame = codec.encode(np.zeros(MAX_LIVE_ROWS, TRADE), longest)
    assert isinstance(frame, bytes)
    assert len(frame) - MAX_LIVE_ROWS * 40 - 4 <= MAX_HEAD_BYTES
    assert codec.decode(frame).key == longest
    with pytest.raises(EncodeError, match="too long"):
        codec.Encoder(StreamKey("S", "X" * 300, "1m"))


def test_version_1_has_candles_alone() -> None:
    with pytest.raises(EncodeError, match="version 1 has no messages for interval 'trade'"):
        codec.Encoder(KEY._replace(interval="trade"), version=1)
    with pytest.raises(EncodeError, match="version 1 has no messages"):
        codec.encode_backfill(KEY._replace(interval="trade"), 1, np.zeros(1, TRADE), version=1)
    with pytest.raises(EncodeError, match="this flux writes 1 and 2"):
        codec.Encoder(KEY, version=3)


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_a_compressed_reply(n: int) -> None:
    rows = sample(CANDLE, n)
    reply = codec.decode(codec.encode_backfill(KEY, 1, rows, zstd=True))
    assert reply.row_count == n
    assert reply.rows.tobytes() == rows.tobytes()


def compressed(packed: bytes, row_count: int) -> Any:
    """A reply whose compressed bytes are `packed`."""
    from flux.kernels import codec as kernel

    frame = kernel.encode_backfill_v2(
        KEY, packed, 11, len(packed), row_count, 1, 0, 0, False, 0, 0, 0, 0, 0, None, EncodeError
    )
    return codec.decode(frame)


@pytest.mark.parametrize(
    ("packed", "row_count"),
    [
        (zstandard.compress(bytes(64 * 1000)), 999),  # declares another size
        (zstandard.compress(bytes(64 << 20)), 1 << 20),  # 2 KB that become 64 MiB
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64)), 1),  # declares none
        (zstandard.compress(bytes(64)) + b"x", 1),  # goes on
        (zstandard.compress(bytes(64)) * 2, 1),  # two frames
        (zstandard.compress(bytes(6400))[:-3], 100),  # ends early
        (b"not zstd", 1),
        (b"", 0),
    ],
)
def test_a_compressed_reply_that_is_not_what_it_says(packed: bytes, row_count: int) -> None:
    assert refused(lambda: compressed(packed, row_count).rows)[0] == "zstd"


def test_a_reply_over_the_limit() -> None:
    with pytest.raises(EncodeError, match="the limit is 4194304"):
        codec.encode_backfill(KEY, 1, np.zeros(70_000, CANDLE))
    with pytest.raises(EncodeError, match="the limit is 4194304"):
        codec.encode_backfill(KEY, 1, np.zeros(70_000, CANDLE), version=1)
    with pytest.raises(EncodeError, match="64 KiB"):
        codec.encode_backfill(KEY, 1, np.zeros(1, CANDLE), correlation_id="x" * 70_000)


def test_what_importing_the_codec_loads() -> None:
    script = "import sys, flux.codec; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert "numpy" in loaded
    assert not loaded & {"zmq", "duckdb", "flatbuffers", "zstandard", "msgspec", "pandas", "rich", "asyncio"}


def test_the_schema_is_not_needed_to_read() -> None:
    script = "import sys, flux.codec; print('flux.schema' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
