"""A FIFO in the place of a file that a user names: one sentence, and nothing waits at it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flux.client.cache import Cache
from flux.errors import ConfigError
from tests.system.processes import FluxServer
from tests.system.test_bad_input import GOOD, LOCAL, said, sample, serve_whole

pytestmark = pytest.mark.system


@pytest.mark.timeout(60)
@pytest.mark.parametrize("written", [False, True])
def test_a_fifo_is_no_file_to_replay(tmp_path: Path, written: bool) -> None:
    """Without a writer its open would wait for ever; with one its bytes come once, and a replay reads them twice."""
    file = tmp_path / "FIFO.csv"
    os.mkfifo(file)
    other = os.open(file, os.O_RDWR) if written else -1
    try:
        if written:
            os.write(other, GOOD)
        assert said("serve", "--data", tmp_path / "data", "--replay", file) == (
            2,
            f"flux serve: {file}: is no regular file\n",
        )
    finally:
        if written:
            os.close(other)


def test_a_pipe_of_the_shell_is_no_file_to_replay(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, GOOD)
        file = f"/proc/{os.getpid()}/fd/{reader}"
        assert said("serve", "--data", tmp_path / "data", "--replay", f"SIM/X/1m={file}") == (
            2,
            f"flux serve: {file}: is no regular file\n",
        )
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["identity", "losses", "journal/00000001.fluxlog", "flux.duckdb"])
def test_a_fifo_in_a_data_directory(tmp_path: Path, name: str) -> None:
    file, rows = sample(tmp_path, 100)
    serve_whole(tmp_path / "data", file, len(rows))
    place = tmp_path / "data" / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    if name == "flux.duckdb":  # served without it, as with any that does not open
        with FluxServer(tmp_path / "data") as server:
            assert server.state == "DEGRADED"
            assert server.stop() == 0
        return
    code, text = said("serve", "--data", tmp_path / "data", *LOCAL)
    assert code in (1, 4)
    assert f"{place}" in text
    assert "is no regular file" in text
    assert "Traceback" not in text


@pytest.mark.timeout(60)
def test_a_fifo_is_no_cache(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="is no regular file"):
        Cache(tmp_path / "fifo")
