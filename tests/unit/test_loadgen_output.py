"""The files beside the JSON: CSV of the seconds, picture of the curve; and what the machine did meanwhile."""

from __future__ import annotations

import csv
import io
import os
import struct
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flux.cli.loadgen import main
from flux.errors import ConfigError
from flux.loadgen import report as reports
from flux.loadgen.environment import Surroundings
from flux.loadgen.histogram import Histogram
from flux.loadgen.plot import plot
from tests.unit.outcomes import histogram, outcome


def test_csv_has_a_line_a_second_and_units() -> None:
    made = reports.report(outcome())
    made["intervals"].append(made["intervals"][0] | {"t_s": 1.5, "missing": 7})
    header, *lines = csv.reader(io.StringIO(reports.to_csv(made)))
    assert header == ["t_s", "sent_rows", "received_rows", "missing_rows", "p50_ns", "p99_ns", "max_ns"]
    assert lines == [["1", "1000", "1000", "0", "1", "2", "3"], ["1.5", "1000", "1000", "7", "1", "2", "3"]]
    assert reports.to_csv(made | {"intervals": []}).count("\n") == 1


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize(
    "values", [(), (5_000,), tuple(range(1_000, 2_000_000, 777)), (1_000, 200_000_000_000)]
)
def test_a_picture_of_any_run(tmp_path: Path, values: tuple[int, ...]) -> None:
    pytest.importorskip("matplotlib")
    ran = outcome(from_schedule=histogram(*values), from_send=Histogram())
    file = tmp_path / "curve.png"
    histograms = {"from_schedule": histogram(*values), "from_send": Histogram()}
    plot(str(file), reports.report(ran), histograms)
    assert png_size(file) == (1080, 648)


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match="nowhere"):
        plot(
            str(tmp_path / "nowhere" / "curve.png"),
            reports.report(outcome()),
            {"from_schedule": Histogram(), "from_send": Histogram()},
        )


def test_without_matplotlib_a_picture_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    file = tmp_path / "curve.png"
    assert main(["--rate", "10", "--duration", "1h", "--plot", str(file)]) == 2
    assert "pip install 'flux-marketdata[plot]'" in capsys.readouterr().err
    assert not file.exists()


def test_the_surroundings_of_a_run_see_others_and_not_the_run_itself() -> None:
    around = Surroundings()
    before = datetime.now(UTC)
    until = time.process_time() + 0.5  # this process's own CPU
    while time.process_time() < until:
        pass
    seen = around.seen()
    assert set(seen) == {"started", "load_1m", "other_cpu", "other_cpu_error", "stolen_cpu"}
    assert abs((datetime.fromisoformat(seen["started"]) - before).total_seconds()) < 60
    cores = os.cpu_count() or 1
    # Of what was not ours there is less than all: our half second of it is taken off.
    assert 0 <= seen["other_cpu"] <= cores
    assert 0 <= seen["stolen_cpu"] <= cores
