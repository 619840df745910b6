"""Names of files that DuckDB would take apart, or cannot take: used as they are, or one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flux.cli import doctor, get
from flux.client.cache import Cache
from flux.config import Replay, ServeConfig
from flux.errors import ConfigError, FluxError
from flux.feed import synth
from flux.server.service import Server
from flux.server.storage.checkup import troubles
from tests.unit.live_server import LiveServer
from tests.unit.served import KEY

ENDS = "tcp://127.0.0.1:*"
NOT_UTF8 = os.fsdecode(b"x\xff")


def start(data: Path) -> None:
    server = Server(ServeConfig(data, ENDS, ENDS))
    server.start()
    try:
        assert server._recovered.store.fault is None
        assert server.vitals.reason == ""
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["file:x", "s3:", "sqlite:x", "[a]*", "it's", "a b%20"])
def test_a_name_like_a_scheme_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    start(Path(name))
    start(Path(name))
    assert Path(name, "flux.duckdb").is_file()
    assert list(troubles(Path(name))) == []
    Cache(f"{name}.cache").close()
    assert Path(f"{name}.cache").is_file()


def test_a_cache_is_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Cache(":memory:").close()
    assert Path(":memory:").is_file()


@pytest.mark.parametrize(("name", "why"), [("a?b", "options"), (NOT_UTF8, "UTF-8")])
def test_what_is_no_name_is_refused_before_anything_is_made(tmp_path: Path, name: str, why: str) -> None:
    data = tmp_path / name
    with pytest.raises(ConfigError, match=f"is no name for a .*{why}"):
        start(data)
    assert not data.exists()
    with pytest.raises(ConfigError, match=f"is no name for a .*{why}"):
        Cache(tmp_path / f"{name}.duckdb")
    assert any(why in finding.text for finding in doctor.examine(data) if finding.name == "data")
    data.mkdir()
    (trouble,) = troubles(data)
    assert trouble.fatal
    assert why in trouble.text


@pytest.mark.parametrize("name", ["file:x", "a?b", "s3:"])
def test_get_writes_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with LiveServer() as served:
        served.add(KEY, 10)
        asked = get.parser().parse_args([str(KEY), "--rpc", served.rep, "-o", f"{name}.parquet"])
        assert get.run(asked) == 0
    assert Path(f"{name}.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_get_refuses_what_is_not_utf8(suffix: str) -> None:
    with pytest.raises(FluxError, match="not UTF-8"):
        get.run(get.parser().parse_args([str(KEY), "-o", NOT_UTF8 + suffix]))


def test_a_file_to_replay_whose_name_the_journal_cannot_hold_is_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / f"{NOT_UTF8}.csv"
    synth.write_csv(file, synth.candles(10))
    server = Server(ServeConfig(tmp_path / "data", ENDS, ENDS, replays=(Replay(file, key="SIM/X/1m"),)))
    with pytest.raises(ConfigError, match="not UTF-8"):
        server.start()
