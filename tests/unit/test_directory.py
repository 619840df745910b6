"""A data directory: one owner, and the original told from a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from flux.errors import ConfigError, DataError, InUseError
from flux.journal.records import FORMAT
from flux.server.storage.directory import (
    DirectoryLock,
    IdentityFile,
    machine_boot,
    read_identity,
    write_identity,
)
from flux.server.storage.origin import ORIGIN, birth_ns, marks_of, why_a_copy

HOLD = """
import sys
import time
from pathlib import Path
from flux.server.storage.directory import DirectoryLock
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
        assert found.copy == ""
        inode = (tmp_path / "identity").stat().st_ino
        assert found.said == IdentityFile(FORMAT, 2**63 - 1, inode, machine_boot(), process, found.said.marks)
        assert found.said.marks is not None
        assert found.said.marks.origin == marks_of(tmp_path).origin

    def test_a_copy_does_not(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        write_identity(tmp_path / "one", 7, process=False)
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        found = read_identity(tmp_path / "two")
        assert found is not None
        assert (found.said.store_id, found.copy) == (7, "identity is another file")
        write_identity(tmp_path / "two", 7, process=False)
        found = read_identity(tmp_path / "two")
        assert found is not None
        assert found.copy == "", "written, it is an original of its own"

    def test_moved_it_is_still_the_original(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        write_identity(tmp_path / "one", 7, process=False)
        (tmp_path / "one").rename(tmp_path / "two")
        found = read_identity(tmp_path / "two")
        assert found is not None
        assert found.copy == ""

    def test_always_of_one_size(self, tmp_path: Path) -> None:
        """It is written over in place: a longer old text must not show behind a shorter new one."""
        sizes = set()
        for store_id in (2**63 - 1, 1):
            write_identity(tmp_path, store_id, process=store_id == 1)
            sizes.add((tmp_path / "identity").stat().st_size)
            found = read_identity(tmp_path)
            assert found is not None
            assert found.said.store_id == store_id
        assert len(sizes) == 1

    def test_a_newer_one_says_what_to_install(self, tmp_path: Path) -> None:
        newer = IdentityFile(FORMAT + 1, 7, 1, machine_boot(), False)
        (tmp_path / "identity").write_bytes(msgspec.json.encode(newer))
        with pytest.raises(DataError, match=f"format {FORMAT + 1}.*upgrade flux-marketdata"):
            read_identity(tmp_path)

    def test_one_that_does_not_read_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "journal").mkdir()
        (tmp_path / "journal" / "00000001.fluxlog").touch()
        for content in (b"\0" * 512, b"", b"{"):
            (tmp_path / "identity").write_bytes(content)
            with pytest.raises(DataError, match=r"does not read.*move it away"):
                read_identity(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"\0" * 512])
    def test_one_that_a_first_start_did_not_come_to_write_is_none(
        self, tmp_path: Path, content: bytes
    ) -> None:
        """A power cut, or a disk that refused, before there was a journal: nothing was ever shown."""
        (tmp_path / "identity").write_bytes(content)
        assert read_identity(tmp_path) is None


COPIES = {
    "away and back": "rm -rf D && cp -a B D",
    "over it": "cp -a B/. D/",
    "tar over it": "tar -C B -cf - . | tar -C D -xf -",
    "tar over it, in place": "tar -C B -cf - . | tar -C D --overwrite -xf -",
    "to another place": "rm -rf D && mv B D",
    "a file of it": "cp -a B/origin D/origin",
    "one file left out": "rm D/origin",
}
NO_COPIES = {
    "nothing": "true",
    "chmod": "chmod -R g+w D",
    "a hard link": "ln D/origin linked; ln D/identity linked2",
    "a hard link gone again, one start later": "ln D/origin linked",
    "read and listed": "cat D/* > all; ls -lR D > listed; cp -a D E",
    "renamed": "mv D E && mv E D",
    "touched": "touch D/identity",
}


def shell(folder: Path, command: str) -> None:
    subprocess.run(["sh", "-ec", command], cwd=folder, check=True)


class TestCopies:
    """What a restore cannot bring back, by the tools that people restore with."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        (tmp_path / "D").mkdir()
        (tmp_path / "D" / "fence").write_bytes(bytes(8_192))
        write_identity(tmp_path / "D", 7, process=False)
        shell(tmp_path, "cp -a D B")
        return tmp_path

    @pytest.mark.parametrize("how", COPIES)
    def test_every_restore_is_noticed(self, place: Path, how: str) -> None:
        """Several times, for a file system gives inodes out again when it likes to."""
        for turn in range(5):
            write_identity(place / "D", 7, process=False)  # a start
            shell(place, "rm -rf B && cp -a D B")
            write_identity(place / "D", 7, process=False)  # another one, behind the backup
            shell(place, COPIES[how])
            found = read_identity(place / "D")
            assert found is not None
            assert found.copy, f"{how}, the {turn + 1}th time"

    @pytest.mark.parametrize("how", ["away and back", "over it", "tar over it"])
    def test_and_where_nothing_happened_since_the_backup(self, place: Path, how: str) -> None:
        shell(place, COPIES[how])
        found = read_identity(place / "D")
        assert found is not None
        assert found.copy

    @pytest.mark.parametrize("how", NO_COPIES)
    def test_what_copies_nothing_is_not(self, place: Path, how: str) -> None:
        shell(place, NO_COPIES[how])
        found = read_identity(place / "D")
        assert found is not None
        assert found.copy == ""
        write_identity(place / "D", 7, process=False)
        shell(place, "rm -f linked linked2")
        found = read_identity(place / "D")
        assert found is not None
        assert found.copy == "", "a start takes the new owner, mode and links over"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_nor_is_chown(self, place: Path) -> None:
        shell(place, "chown -R 12345:12345 D")
        found = read_identity(place / "D")
        assert found is not None
        assert found.copy == ""

    def test_a_file_system_without_birth_times(self, place: Path) -> None:
        """Inodes and the ctime have to do."""
        marks = marks_of(place / "D")
        assert marks.identity is not None
        assert marks.origin is not None
        without = [msgspec.structs.replace(m, birth_ns=0) for m in (marks.identity, marks.origin)]
        recorded = msgspec.structs.replace(marks, identity=without[0], origin=without[1])
        assert why_a_copy(recorded, marks) == ""
        shell(place, COPIES["over it"])
        assert why_a_copy(recorded, marks_of(place / "D")) == f"{ORIGIN} was written over"

    @pytest.mark.parametrize("name", ["identity", "origin", "fence"])
    def test_an_inode_that_was_given_out_again(self, place: Path, name: str) -> None:
        """To a file of another owner, mode or link count, say, which its ctime would excuse: the birth time tells."""
        marks = marks_of(place / "D")
        mark = msgspec.structs.replace(getattr(marks, name), birth_ns=5)
        other = msgspec.structs.replace(mark, birth_ns=6, changed_ns=mark.changed_ns + 1, mode=0)
        recorded = msgspec.structs.replace(marks, **{name: mark})
        found = msgspec.structs.replace(marks, **{name: other})
        assert why_a_copy(recorded, found) == f"{name} was made at another time"

    def test_a_birth_time_is_when_the_file_was_made(self, tmp_path: Path) -> None:
        before = time.time_ns()
        (tmp_path / "file").touch()
        born = birth_ns(tmp_path / "file")
        assert born == 0 or before - 1_000_000_000 < born <= time.time_ns()
        os.utime(tmp_path / "file", (1, 1))
        assert birth_ns(tmp_path / "file") == born

    def test_an_identity_of_the_first_release(self, place: Path) -> None:
        inode = (place / "D" / "identity").stat().st_ino
        for said_inode, copy in ((inode, ""), (inode + 1, "identity is another file")):
            old = {
                "format": 1,
                "store_id": 7,
                "inode": said_inode,
                "machine_boot": "x",
                "shown_before_sync": False,
            }
            (place / "D" / "identity").write_bytes(msgspec.json.encode(old).ljust(512))
            found = read_identity(place / "D")
            assert found is not None
            assert (found.said.store_id, found.copy) == (7, copy)
