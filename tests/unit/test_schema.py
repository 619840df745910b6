"""The schema file, what flatc made of it, the kernel's shapes and the oracle's: four tellings of one
contract."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flux import codec, schema
from flux.kernels import codec as kernel
from flux.model import CANDLE, MARK, QUOTE, REFUSED, TRADE
from flux.schema import messages
from flux.schema.generated.MessageBody import MessageBody
from flux.schema.generated.MessageType import MessageType
from tests.oracle import codec as oracle
from tests.unit.plain_codec import KEY, TABLES, sample

ROOT = Path(__file__).resolve().parents[2]
FBS = (ROOT / "schemas" / "market_data.fbs").read_text()
BLOCKS = {
    name: re.findall(r"^\s+(\w+): ([^;]+);(.*)$", body, re.M)
    for name, body in re.findall(r"^(?:table|struct) (\w+) \{(?!\})(.*?)^\}", FBS, re.M | re.S)
}
OTHER_TABLES = {26: "StreamKey", 27: "Cursor", 28: "Candle", 29: "GapRecord"}
STRUCT_KINDS = {
    "[CandleRow]": "candles",
    "[TradeRow]": "trades",
    "[QuoteRow]": "quotes",
    "[StreamMark]": "marks",
    "[RefusedRow]": "refused",
}
SCALARS = {"ubyte": "u8", "uint": "u32", "long": "i64", "ulong": "u64", "double": "f64", "bool": "bool"}
NUMBERS = {**{name: tag for tag, name in TABLES.items()}, **{name: n for n, name in OTHER_TABLES.items()}}


def kernel_slot(kind: str) -> tuple[str, int]:
    """A field of the schema as the kernel tells it."""
    if kind in STRUCT_KINDS:
        return STRUCT_KINDS[kind], 0
    if kind.startswith("bool = true"):
        return "true", 0
    if kind in SCALARS:
        return SCALARS[kind], 0
    if kind in ("string", "[ubyte]"):
        return {"string": "string", "[ubyte]": "bytes"}[kind], 0
    return ("tables", NUMBERS[kind[1:-1]]) if kind[0] == "[" else ("table", NUMBERS[kind])


@pytest.mark.parametrize("number", range(1, 30))
def test_the_kernel_and_the_oracle_know_the_tables_of_the_schema(number: int) -> None:
    name = {**TABLES, **OTHER_TABLES}[number]
    fields = BLOCKS.get(name, [])
    assert kernel.shapes()[number] == tuple(kernel_slot(kind) for _, kind, _ in fields)
    told = oracle.SHAPES[number if number < 26 else name].split()
    assert [entry.partition(":")[0] for entry in told] == [field for field, _, _ in fields]


def test_every_field_has_a_comment() -> None:
    assert len(BLOCKS) > 30
    for name, fields in BLOCKS.items():
        for field, _, rest in fields:
            assert re.match(r"\s*// \S", rest), f"{name}.{field} has no comment"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("CandleRow", CANDLE),
        ("TradeRow", TRADE),
        ("QuoteRow", QUOTE),
        ("StreamMark", MARK),
        ("RefusedRow", REFUSED),
    ],
)
def test_a_row_is_declared_alike_in_schema_and_model(name: str, dtype: Any) -> None:
    codes = {"long": "<i8", "ulong": "<u8", "double": "<f8", "uint": "<u4"}
    assert [(field, codes[kind]) for field, kind, _ in BLOCKS[name]] == dtype.descr


def test_classes_have_the_slots_of_the_schema() -> None:
    for tag, made in codec.MESSAGES.items():
        slots = [slot.removeprefix("_") for slot in made.__slots__]
        fields = [field for field, _, _ in BLOCKS.get(TABLES[tag], [])]
        if tag == 15:
            fields[2] = "candles"  # `rows` is the property that chooses
        assert slots == fields, made


def test_tags_and_type_hints() -> None:
    tags = {name: tag for name, tag in vars(MessageBody).items() if name[0] != "_"}
    hints = {name: hint for name, hint in vars(MessageType).items() if name[0] != "_"}
    for name, tag in tags.items():
        constant = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
        assert hints[constant] == (100 if tag == 10 else tag - (tag > 10)), name
    assert sorted(tags.values()) == list(range(26))
    assert "file_identifier" not in re.sub(r"//.*", "", FBS)


def test_version_1_frames_have_neither_identifier_nor_checksum_nor_new_slots() -> None:
    plain = messages.health_response(message="ok", state=1, version="x", store_id=5, schema_version=1)
    assert plain == messages.health_response(message="ok", schema_version=1)
    assert plain[4:8] != schema.FILE_IDENTIFIER
    error = messages.error_response(code=400, status=2, retry_after_ms=5, schema_version=1)
    assert codec.decode(error).status == 0
    checked = messages.health_response(message="ok")
    assert checked[4:8] == schema.FILE_IDENTIFIER
    assert int.from_bytes(checked[-4:], "little") == codec.crc32c(checked[:-4])


def test_a_builder_refuses_what_it_cannot_write() -> None:
    with pytest.raises(ValueError, match="schema version 3"):
        messages.health_request(schema_version=3)
    with pytest.raises(TypeError, match="rows are 1-d"):
        messages.forming(key=KEY, rows=sample(TRADE, 1))


def test_versions_compare_as_numbers() -> None:
    assert schema.version_of("25.12.19") == (25, 12, 19)
    assert schema.version_of("25.9") < schema.version_of("25.12.19")
    assert schema.version_of("26.0rc1") == (26,)


def test_an_old_runtime_is_named() -> None:
    script = "import flatbuffers; flatbuffers.__version__ = '2.0'; import flux.schema"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "flux.schema needs flatbuffers 25.12.19 or later, this is 2.0" in done.stderr


def gen_schema(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "gen_schema"), *arguments]
    environment = None if path is None else {"PATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.skipif(shutil.which("flatc") is None, reason="flatc is not installed")
def test_the_generated_code_is_that_of_the_schema() -> None:
    done = gen_schema("--check")
    assert done.returncode == 0, done.stderr


def test_a_missing_flatc_is_said(tmp_path: Path) -> None:
    done = gen_schema("--check", path=str(tmp_path))
    assert done.returncode == 2
    assert "flatbuffers-compiler" in done.stderr
