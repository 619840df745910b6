"""`flux doctor`: what it says of this installation, and of one that lacks something."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flux.cli import doctor
from flux.cli.main import main
from flux.limits import MAX_MAPPED_RINGS
from flux.transport import pump

ROOT = Path(__file__).resolve().parents[2]


def findings(data: Path | None = None) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine(data)}


def test_every_kernel_of_the_build_is_looked_at() -> None:
    said = re.search(r"set\(kernels ([\w/ ]+)\)", (ROOT / "CMakeLists.txt").read_text())
    assert said is not None
    assert sorted(name.rpartition("/")[2] for name in said[1].split()) == list(doctor.KERNELS)


def test_this_installation_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data", str(tmp_path / "not" / "yet")]) == 0
    told = capsys.readouterr().out
    assert "FAILED" not in told
    names = {line.split()[1] for line in told.splitlines()}
    wanted = {
        "python",
        "numpy",
        "pyzmq",
        "duckdb",
        "kernels",
        "crc32c",
        "pump",
        "bounds",
        "memory",
        "timer",
        "slices",
        "data",
    }
    assert names == wanted
    assert not (tmp_path / "not").exists(), "it only looks"


def test_a_kernel_without_slices_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "granted", lambda: False)
    found = findings()["slices"]
    assert found.ok is None
    assert "6.12" in found.text


def test_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(line) == {"name", "ok", "text"} for line in told)
    assert "data" not in {line["name"] for line in told}


def test_the_pumps_fall_back_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings()["pump"].ok is (True if pump.NATIVE else None)
    monkeypatch.setattr(pump, "NATIVE", False)
    monkeypatch.setattr(pump, "FALL_BACK", "undefined symbol: zmq_msg_recv")
    found = findings()["pump"]
    assert found.ok is None, "it works, slowly"
    assert "undefined symbol: zmq_msg_recv" in found.text


def test_a_kernel_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "KERNELS", ("codec", "no_such_kernel"))
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert re.search(r"FAILED +kernels +1 of 2 built; no_such_kernel: ", told)


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("no-such-library",))
    assert findings()["no-such-library"] == (
        "no-such-library",
        False,
        "not installed: pip install no-such-library",
    )


def test_few_mappings_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_read", lambda path: str(MAX_MAPPED_RINGS) if "map_count" in path else "")
    assert findings()["memory"].ok is None
    monkeypatch.setattr(doctor, "_read", lambda _: "")
    assert findings()["memory"].ok is None
    assert findings()["timer"].ok is True


def test_a_file_in_the_place_of_the_data_directory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    found = findings(file)["data"]
    assert found == ("data", False, f"{file} is not a directory")


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refused)
    found = findings(tmp_path)["data"]
    assert found.ok is False
    assert "Permission denied" in found.text


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(doctor.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(10, 10, 0))
    assert findings(tmp_path)["data"].ok is False
