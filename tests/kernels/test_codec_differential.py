"""Our decoder beside what flatc made, on random messages that neither of them built.

`--messages N` says how many (20,000). Against the generated Python each value of each message; against C++ (where
g++, flatc and libflatbuffers-dev are installed) every value of the row messages, and the verdict on frames that
were damaged.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flux import codec
from flux.batch import Batch
from flux.errors import DecodeError
from tests.kernels.random_messages import damaged, message
from tests.oracle import codec as oracle
from tests.unit.plain_codec import by_flatc, ours

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.fixture
def messages(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--messages"))


def test_every_value_is_what_the_generated_python_reads(rng: random.Random, messages: int) -> None:
    seen: Counter[int] = Counter()
    for at in range(messages):
        frame = message(rng)
        decoded = ours(codec.decode(frame))
        assert decoded == by_flatc(frame), f"message {at}: {frame.hex()}"
        seen[decoded["message_type"]] += 1
    if messages >= 2000:
        assert set(seen) == {tag for tag in oracle.SHAPES if isinstance(tag, int)}


# ---- C++ -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """judge_codec.cpp, built with the header that flatc makes now."""
    for needed in ("g++", "gcc", "flatc"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    if not Path("/usr/include/flatbuffers/flatbuffers.h").exists():
        pytest.skip("libflatbuffers-dev is not installed")
    made = tmp_path_factory.mktemp("judge")
    subprocess.run(["flatc", "--cpp", "-o", str(made), str(ROOT / "schemas" / "market_data.fbs")], check=True)
    crc = ["gcc", "-O2", "-c", str(ROOT / "ext" / "crc32c.c"), "-o", str(made / "crc32c.o")]
    subprocess.run(crc, check=True)
    program = made / "judge_codec"
    built = subprocess.run(
        ["g++", "-std=c++17", "-O1", f"-I{made}", HERE / "judge_codec.cpp", made / "crc32c.o", "-o", program],
        capture_output=True,
        text=True,
        check=False,
    )
    if "static assertion failed" in built.stderr and "version" in built.stderr:
        pytest.skip("flatc and libflatbuffers-dev are of different versions")
    assert built.returncode == 0, built.stderr
    return program


def judged(judge: Path, frames: list[bytes], folder: Path) -> list[tuple[bool, int]]:
    """(accepted, CRC of what it says) of each frame, by C++."""
    with (folder / "frames").open("wb") as file:
        for frame in frames:
            body = frame[:-4] if frame[4:8] == b"FLX2" else frame
            file.write(len(body).to_bytes(4, "little") + body)
    subprocess.run([str(judge), str(folder / "frames"), str(folder / "verdicts")], check=True)
    made = [(bool(ok), crc) for ok, crc in struct.iter_unpack("<BI", (folder / "verdicts").read_bytes())]
    assert len(made) == len(frames)
    return made


def said(decoded: Any) -> int:
    """The CRC that judge_codec.cpp makes, of what we decoded; 0 where it carries no rows."""
    if not isinstance(decoded, Batch):
        return 0

    def text(name: str | None) -> bytes:
        if name is None:
            return b"\xff\xff\xff\xff"
        return len(name.encode()).to_bytes(4, "little") + name.encode()

    tag = decoded.message_type
    parts = [
        struct.pack("<IbB", decoded.schema_version, decoded.type_hint, tag),
        text(decoded.correlation_id),
    ]
    parts += [bytes([decoded.key is not None]), *(text(name) for name in decoded.key or ("", "", ""))]
    parts.append(decoded.start_sequence.to_bytes(8, "little"))
    if tag == 7:
        parts += [row.tobytes()[:48] for row in decoded.rows]
    else:
        place = (decoded.epoch, decoded.store_id, decoded.origin_ns, decoded.recorded_ns, decoded.stream_id)
        parts += [struct.pack("<IQqqI", *place), decoded.rows.tobytes()]
    return codec.crc32c(b"".join(parts))


def test_every_row_is_what_cpp_reads(judge: Path, rng: random.Random, messages: int, tmp_path: Path) -> None:
    frames = [message(rng) for _ in range(messages)]
    rows = 0
    for frame, (accepted, crc) in zip(frames, judged(judge, frames, tmp_path), strict=True):
        assert accepted, frame.hex()
        decoded = codec.decode(frame)
        assert said(decoded) == crc, frame.hex()
        rows += isinstance(decoded, Batch)
    assert rows > messages // 5


class Offsets(oracle.Reader):
    """A reader that remembers whether an offset was 0."""

    zero = False

    def vector(self, field: int, width: int, align: int) -> tuple[int, int]:
        self.zero |= self.item(field, "<I") == 0
        return super().vector(field, width, align)

    def table(self, at: int) -> dict[int, int]:
        self.zero |= self.item(at, "<i") == 0  # the offset that led here is this word
        return super().table(at)


def stricter_in_cpp(frame: bytes, decoded: Any) -> bool:
    """Whether C++ may refuse what the Rust reader, and so we, take: the message of a tag that is not known, which
    nobody follows, may point anywhere; and an offset may be 0, that is, point to itself."""
    if isinstance(decoded, codec.Unknown):
        return True
    reader = Offsets(frame[:-4] if frame[4:8] == b"FLX2" else frame)
    slots = reader.table(reader.item(0, "<I"))
    if 2 in slots:
        reader.string(slots[2])
    reader.shape(slots[4] + reader.item(slots[4], "<I"), decoded.message_type)
    return reader.zero


def test_what_cpp_refuses_is_refused(judge: Path, rng: random.Random, messages: int, tmp_path: Path) -> None:
    frames = [damaged(rng, message(rng)) for _ in range(messages)]
    tally: Counter[tuple[str, str]] = Counter()
    for frame, (accepted, crc) in zip(frames, judged(judge, frames, tmp_path), strict=True):
        try:
            decoded = codec.decode(frame)
        except DecodeError as error:
            tally["C++ accepts" if accepted else "C++ refuses", error.reason] += 1
            continue
        tally["C++ accepts" if accepted else "C++ refuses", "accepted"] += 1
        if accepted:
            assert said(decoded) == crc, frame.hex()
        else:
            assert stricter_in_cpp(frame, decoded), frame.hex()
    print({" and ours ".join(both): n for both, n in sorted(tally.items())})
