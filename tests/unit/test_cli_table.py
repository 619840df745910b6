"""What people read: times to the millisecond, exactly."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.batch import Trades
from flux.cli import output
from flux.model import TRADE, StreamKey

DAY_NS = 86_400_000_000_000


def written(ts_ns: int) -> str:
    rows = np.zeros(1, TRADE)
    rows["ts_ns"] = ts_ns
    file = io.StringIO()
    output.writer("table", file).write(Trades(StreamKey("SIM", "BTC", "trade"), 1, rows))
    return file.getvalue().splitlines()[1]


@pytest.mark.parametrize(
    ("ts_ns", "shown"),
    [
        (19_675 * DAY_NS - 1, "2023-11-13 23:59:59.999"),  # not the next day
        (19_675 * DAY_NS, "2023-11-14 00:00:00.000"),
        (1_700_000_000_123_999_999, "2023-11-14 22:13:20.123"),
        (-1, "1969-12-31 23:59:59.999"),
    ],
)
def test_a_time_is_cut_to_its_millisecond(ts_ns: int, shown: str) -> None:
    """N6."""
    assert shown in written(ts_ns)


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["ts_ms", "ts_ns"]))
def test_every_time_can_be_shown(time: int, field: str) -> None:
    """N6, M5: numpy, which counts in integers, shows the same; what is no year of datetime is shown as it is."""
    found = output.shown_time(time, field)
    ms = np.datetime64(time if field == "ts_ms" else time // 1_000_000, "ms")
    if np.datetime64("0001-01-01") <= ms < np.datetime64("10000-01-01"):
        assert found == str(ms).replace("T", " ")
    else:
        assert found == str(time)
