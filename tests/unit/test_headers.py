"""M7: the headers for other people's C and C++ need nothing that is not said: codec.h, and crc32c.c to link."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from flux import codec
from flux.model import CANDLE, StreamKey
from tests.unit.test_tables import candles

EXT = Path(__file__).resolve().parents[2] / "ext"
INSTALLED = ("codec.h", "verify.h", "wire.h", "row.h", "crc32c.h", "crc32c.c")

PROGRAM = """
#include "flux/codec.h"
#include <stdio.h>

int main(int argc, char **argv) {
    static unsigned char frame[1 << 16];
    flux_view view;
    flux_candle last;
    FILE *file = fopen(argv[argc - 1], "rb");
    size_t size = file ? fread(frame, 1, sizeof frame, file) : 0;
    int reason = flux_verify_as(frame, size, 1, &view);
    if (reason) return 1;
    memcpy(&last, frame + view.rows_at + (view.row_count - 1) * sizeof last, sizeof last);
    printf("%u %.17g", view.row_count, last.close);
    return 0;
}
"""


@pytest.mark.parametrize(
    ("compiler", "suffix", "standard"), [("gcc", "c", "gnu11"), ("g++", "cpp", "gnu++17")]
)
def test_a_program_verifies_a_frame(tmp_path: Path, compiler: str, suffix: str, standard: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    (tmp_path / "flux").mkdir()
    for name in INSTALLED:
        shutil.copy(EXT / name, tmp_path / "flux")
    (tmp_path / f"program.{suffix}").write_text(PROGRAM)
    rows = candles()
    assert rows.dtype == CANDLE
    frame = codec.encode(rows, StreamKey("SIM", "BTC", "1m"), 1)
    assert isinstance(frame, bytes)
    (tmp_path / "frame").write_bytes(frame)
    strict = [f"-std={standard}", "-Wall", "-Werror", "-Wno-unused-function", "-I."]
    for command in (
        ["gcc", "-std=gnu11", "-O1", "-c", "flux/crc32c.c", "-o", "crc32c.o"],
        [compiler, *strict, f"program.{suffix}", "crc32c.o", "-o", "program"],
    ):
        subprocess.run(command, check=True, cwd=tmp_path)
    done = subprocess.run(["./program", "frame"], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{len(rows)} {rows['close'][-1]:.17g}"
