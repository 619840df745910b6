"""Other people's Cython: a module that cimports flux.kernels.codec, built against the installed package and used."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from flux.examples import cython_extension
from tests.system.packages import run

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which(os.environ.get("CC", "cc").split()[0]) is None, reason="no C compiler is installed"
    ),
]

# Every function that the .pxd declares, so that a declaration which is not the header's does not compile.
_ALL = """# cython: language_level=3
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from flux.kernels.codec cimport *

def round_trip():
    cdef flux_template template, learned
    cdef flux_v1_template template_v1
    cdef const flux_template *templates[1]
    cdef flux_candle row
    cdef flux_view view
    cdef flux_run_rows run
    cdef uint64_t offsets[2]
    cdef uint32_t stream_id = 9
    cdef uint8_t frame[1024]
    cdef uint8_t other[1024]
    cdef size_t size
    row.ts_ms, row.open, row.high, row.low, row.close, row.volume, row.turnover = 1, 2, 3, 4, 5, 6, 7
    row.trade_count, row.flags = 8, FLUX_CLOSED | FLUX_TRADED
    assert flux_row_size(FLUX_ROWS_CANDLE) == sizeof(flux_candle) == 64
    assert flux_row_size(FLUX_ROWS_TRADE) == sizeof(flux_trade) == sizeof(flux_quote) == 40
    assert flux_template_make(&template, FLUX_ROWS_CANDLE, b"SIM", 3, b"X", 1, b"1m", 2) == 0
    size = flux_encode(&template, frame, 5, 1, 2, 3, 4, stream_id, &row, 1)
    assert size == flux_encoded_size(&template, 1) == template.head_size + template.row_size + FLUX_CHECKSUM_SIZE
    assert flux_verify(frame, size, &view) == FLUX_OK
    assert (view.start_sequence, view.row_count, view.rows_at) == (5, 1, template.head_size)
    assert flux_template_from(&learned, frame, size, &view) == 0
    assert flux_match(&learned, frame, size, &view) == 1
    templates[0] = &template
    run.stream, run.rows, run.at, run.first, run.origin_ns = 0, 1, 0, 5, 2
    assert flux_runs_place(templates, 1, &run, 1, 64, offsets) == 1
    flux_runs_encode(templates, &stream_id, &run, 1, <uint8_t *>&row, offsets, other, 1, 4, 3)
    assert offsets[1] == size and frame[:size] == other[:size]
    assert flux_crc32c(0, frame, size - 4) == (<uint32_t *>(frame + size - 4))[0]
    frame[20] ^= 1
    assert flux_verify(frame, size, &view) == FLUX_CHECKSUM
    assert flux_v1_template_make(&template_v1, b"SIM", 3, b"X", 1, b"1m", 2) == 0
    size = flux_v1_encode(&template_v1, frame, 5, &row, 1)
    assert size == flux_v1_encoded_size(&template_v1, 1)
    assert flux_verify(frame, size, &view) == FLUX_OK and view.row_kind == FLUX_ROWS_CANDLE_V1
    row.close = 0
    assert flux_v1_rows(frame, &view, &row) == 1 and row.close == 5
    return "all of it"
"""


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    cython_extension.main()
    assert capsys.readouterr().out == (
        "vwap of two candles, read by Cython: 17.5\n"
        "a candle written by Cython: <Candles 'SIM/BTCUSDT/1m' 1..1 epoch 0> close 20.0 vwap 20.0\n"
    )


def test_the_example_refuses_what_the_codec_refuses(tmp_path: Path) -> None:
    kernel = cython_extension.load(cython_extension.build(tmp_path))
    with pytest.raises(ValueError, match="not a frame of candles: 1"):
        kernel.vwap([b"short"])


def test_the_installed_package_is_all_that_a_module_elsewhere_needs(fresh: Path, tmp_path: Path) -> None:
    python, libraries = fresh / "python", sysconfig.get_path("purelib")
    (tmp_path / "theirs.pyx").write_text(_ALL)

    def there(*command: str | Path) -> str:
        return run(python, *command, cwd=tmp_path, PYTHONPATH=libraries)

    include = there("-c", "import flux.codec; print(flux.codec.get_include())").strip()
    assert include.startswith(str(fresh.parent))
    there("-m", "cython", "-3", "theirs.pyx")
    flags = ("-O2", "-Wall", "-Werror=incompatible-pointer-types", "-fPIC", "-shared")
    made = tmp_path / f"theirs{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiler = os.environ.get("CC", "cc").split()
    run(
        *compiler,
        *flags,
        f"-I{sysconfig.get_path('include')}",
        f"-I{include}",
        tmp_path / "theirs.c",
        "-o",
        made,
    )
    told = there("-c", "import sys, theirs; print(theirs.round_trip(), 'flux' in sys.modules)")
    assert told == "all of it False\n"  # header alone: nothing of flux is imported
    told = there("-m", "flux.examples.cython_extension")
    assert "17.5" in told
