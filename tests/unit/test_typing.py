"""C-10: what a type checker knows of the public names, by mypy --strict over a program of a user's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import flux

PROGRAM = """
import flux
import numpy as np

def of(candles: flux.Candles, trades: flux.Trades, quotes: flux.Quotes, batch: flux.Batch) -> None:
    reveal_type(candles.close)
    reveal_type(candles.ts_ms)
    reveal_type(candles.flags)
    reveal_type(trades.trade_id)
    reveal_type(quotes.bid)
    reveal_type(batch.sequences)
    reveal_type(batch.key)
    reveal_type(flux.resample(candles, "5m"))
    reveal_type(flux.resample(candles.rows, "5m"))
    reveal_type(flux.TradeFlag.CORRECTION)
    reveal_type(flux.__version__)
    batch.close
    candles.clsoe
    trades.close
    flux.importlib
"""

SAYS = [
    *(
        "ndarray.*float64|ndarray.*floating",
        "ndarray.*int64|ndarray.*signedinteger",
        "ndarray.*uint32|ndarray.*unsigned",
    ),
    *(
        "ndarray.*uint64|ndarray.*unsigned",
        "ndarray.*float64|ndarray.*floating",
        "ndarray.*uint64|ndarray.*unsigned",
    ),
    *(
        r"flux\.model\.StreamKey.*None",
        r"flux\.batch\.Candles",
        r"ndarray.*void",
        "TradeFlag",
        r"\bstr\b",
    ),
]


def test_mypy_knows_every_column(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    flags = ["--strict", "--no-error-summary", "--hide-error-context", f"--cache-dir={tmp_path / 'cache'}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, str(program)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if "program.py" in line]
    revealed = [line for line in said if "Revealed type" in line]
    assert len(revealed) == len(SAYS), done.stdout + done.stderr
    for line, expected in zip(revealed, SAYS, strict=True):
        assert re.search(expected, line), line
        assert '"Any"' not in line
    errors = [line for line in said if ": error:" in line]
    assert [re.search(r'attribute "(\w+)"', line)[1] for line in errors] == [  # type: ignore[index]  # None fails, too
        "close",
        "clsoe",
        "close",
        "importlib",
    ]


def test_public_names() -> None:
    for name in ("Batch", "Candles", "Trades", "Quotes", "TradeFlag", "CandleFlag", "__version__"):
        assert getattr(flux, name)
        assert name in dir(flux)
    assert re.match(r"\d+\.\d+", flux.__version__)
    for name in ("Any", "importlib"):
        assert not hasattr(flux, name)
        assert name not in dir(flux)
