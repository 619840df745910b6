"""The examples run, and say what they are for."""

from __future__ import annotations

import numpy as np
import pytest

from flux.examples import volume_profile as example


def test_volume_profile_prints_hours_and_levels(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba")
    example.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + example.LEVELS
    assert sum("vwap" in line for line in lines) == 3


def test_a_profile_has_all_the_volume() -> None:
    rows = example.sample(hours=1)
    rows["high"][5] = rows["low"][5]
    out = np.zeros(2 + example.LEVELS)
    example.volume_profile(rows.view(np.recarray), out)
    np.testing.assert_allclose(out[2:].sum(), rows["volume"].sum())
    assert out[:2].tolist() == [rows["low"].min(), rows["high"].max()]
    np.testing.assert_allclose(
        example.vwap(rows.view(np.recarray)), rows["turnover"].sum() / rows["volume"].sum()
    )
