"""A data directory: one owner, and the original told from a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from flux.errors import ConfigError, DataError, InUseError
from flux.server.directory import DirectoryLock, IdentityFile, machine_boot, read_identity, write_identity
from flux.server.records import FORMAT

HOLD = """
import sys
from pathlib import Path
from flux.server.directory import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


class TestLock:
    def test_a_second_owner_is_told_the_pid(self, tmp_path: Path) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(InUseError, match=f"in use by process {holder.pid}$") as caught:
                DirectoryLock(tmp_path)
            assert caught.value.exit_code == 3
            holder.kill()
            holder.wait()
            DirectoryLock(tmp_path).release()

    def test_released_it_is_free(self, tmp_path: Path) -> None:
        lock = DirectoryLock(tmp_path / "made" / "on the way")
        with pytest.raises(InUseError, match=str(os.getpid())):
            DirectoryLock(tmp_path / "made" / "on the way")
        lock.release()
        lock.release()
        DirectoryLock(tmp_path / "made" / "on the way").release()

    def test_a_directory_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="cannot use"):
            DirectoryLock(tmp_path / "file")


class TestIdentity:
    def test_none_written(self, tmp_path: Path) -> None:
        assert read_identity(tmp_path) is None

    @pytest.mark.parametrize("process", [True, False])
    def test_the_original_knows_itself(self, tmp_path: Path, process: bool) -> None:
        write_identity(tmp_path, 2**63 - 1, process=process)
        found = read_identity(tmp_path)
        assert found is not None
        said, original = found
        assert original
        assert said == IdentityFile(
            FORMAT, 2**63 - 1, (tmp_path / "identity").stat().st_ino, machine_boot(), process
        )

    def test_a_copy_does_not(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        write_identity(tmp_path / "one", 7, process=False)
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        found = read_identity(tmp_path / "two")
        assert found is not None
        assert (found[0].store_id, found[1]) == (7, False)
        write_identity(tmp_path / "two", 7, process=False)
        found = read_identity(tmp_path / "two")
        assert found is not None
        assert found[1], "written, it is an original of its own"

    def test_moved_it_is_still_the_original(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        write_identity(tmp_path / "one", 7, process=False)
        (tmp_path / "one").rename(tmp_path / "two")
        found = read_identity(tmp_path / "two")
        assert found is not None
        assert found[1]

    def test_always_of_one_size(self, tmp_path: Path) -> None:
        """It is written over in place: a longer old text must not show behind a shorter new one."""
        sizes = set()
        for store_id in (2**63 - 1, 1):
            write_identity(tmp_path, store_id, process=store_id == 1)
            sizes.add((tmp_path / "identity").stat().st_size)
            found = read_identity(tmp_path)
            assert found is not None
            assert found[0].store_id == store_id
        assert len(sizes) == 1

    def test_a_newer_one_says_what_to_install(self, tmp_path: Path) -> None:
        newer = IdentityFile(FORMAT + 1, 7, 1, machine_boot(), False)
        (tmp_path / "identity").write_bytes(msgspec.json.encode(newer))
        with pytest.raises(DataError, match=f"format {FORMAT + 1}.*upgrade flux-marketdata"):
            read_identity(tmp_path)

    def test_one_that_does_not_read_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "identity").write_bytes(b"\0" * 512)
        with pytest.raises(DataError, match=r"does not read.*move it away"):
            read_identity(tmp_path)
