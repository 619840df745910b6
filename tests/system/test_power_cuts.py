"""Power cuts: whatever the disk holds then, what was shown is there, or a new epoch says that it is not (S3, S5, S6).

CI judges 150 images; `tools/test tests/system/test_power_cuts.py --images 5000` is the whole. How a recording becomes
images, and what a disk may do: tests/disk/images.py; what the lives are: tests/disk/powercut.py.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.disk.images import PAGE, Choice, Disk, Newest, base_of
from tests.disk.log import Entry, Kind
from tests.disk.powercut import campaign, careless

pytestmark = pytest.mark.system

INODE, OTHER = 1_000_001, 1_000_002


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("durability", ["disk", "process"])
def test_a_power_cut_at_any_moment(
    tmp_path: Path, request: pytest.FixtureRequest, rng: random.Random, durability: str
) -> None:
    count = int(request.config.getoption("--images")) // 2
    told = campaign(tmp_path, durability, count, rng)
    print(
        f"{told.images} images, {told.new_epochs} in a new epoch, {told.rebuilt} with a database to be rebuilt, "
        f"{told.shown} rows had been shown; {told.rotations} rotations"
    )
    assert told.images == count
    assert told.shown > 100 * count, "next to nothing was shown before the cuts: they prove nothing"
    assert told.rotations, "no rotation was recorded"
    assert told.new_epochs > count // 4, "no epoch was recorded"
    assert not told.violations, f"{len(told.violations)}:\n" + "\n".join(told.violations)


def test_a_server_that_does_not_wait_for_the_disk_is_found_out(tmp_path: Path, rng: random.Random) -> None:
    """Is the campaign able to fail? Its images of such a server lack rows that were shown, in the same epoch."""
    found = [violation for told in careless(tmp_path, 30, rng) for violation in told.violations]
    assert any("lost: shown: not kept" in violation for violation in found), found


class TestImages:
    """What the maker of images leaves, and what it never takes away."""

    def entry(self, kind: Kind, inode: int = 0, a: int = 0, data: bytes = b"", b: int = 0) -> Entry:
        return Entry(kind, 0, inode, a, b, data, 1, 0)

    def disk(self, root: Path) -> tuple[Disk, bytes]:
        """A file `one` that was made; its folder was synced, itself not."""
        disk, path = Disk(root, base_of(root)), str(root / "one").encode()
        folder = root.stat().st_ino
        for entry in (
            self.entry(Kind.CREATE, INODE, data=path),
            self.entry(Kind.SYNCING, folder, 1),
            self.entry(Kind.SYNCED, folder, 1),
        ):
            disk.follow(entry)
        return disk, path

    def lefts(self, disk: Disk) -> set[tuple[tuple[str, bytes], ...]]:
        """All that was ever left, of 400 draws."""
        return {tuple(sorted(disk.left(Choice(random.Random(seed))).items())) for seed in range(400)}

    def test_pages_that_were_not_synced_are_there_or_not_one_by_one(self, tmp_path: Path) -> None:
        disk, _ = self.disk(tmp_path)
        disk.follow(self.entry(Kind.SIZE, INODE, 2 * PAGE))
        disk.follow(self.entry(Kind.SYNCING, INODE, 2))
        disk.follow(self.entry(Kind.SYNCED, INODE, 2))
        disk.follow(self.entry(Kind.WRITE, INODE, PAGE - 1, b"ab"))
        none, both = bytes(2 * PAGE), bytes(PAGE - 1) + b"ab" + bytes(PAGE - 1)
        first, second = both[:PAGE] + bytes(PAGE), bytes(PAGE) + both[PAGE:]
        assert self.lefts(disk) == {(("one", content),) for content in (none, both, first, second)}
        assert disk.left(Newest()) == {"one": both}

    def test_a_sync_covers_what_was_written_before_it_began(self, tmp_path: Path) -> None:
        disk, _ = self.disk(tmp_path)
        disk.follow(self.entry(Kind.WRITE, INODE, 0, b"old"))
        disk.follow(self.entry(Kind.SYNCING, INODE, 2))
        disk.follow(self.entry(Kind.WRITE, INODE, 0, b"new"))
        assert self.lefts(disk) >= {(("one", b""),), (("one", b"old"),), (("one", b"new"),)}
        disk.follow(self.entry(Kind.SYNCED, INODE, 2))
        assert self.lefts(disk) == {(("one", b"old"),), (("one", b"new"),)}

    def test_a_sync_that_failed_covers_nothing(self, tmp_path: Path) -> None:
        disk, _ = self.disk(tmp_path)
        disk.follow(self.entry(Kind.WRITE, INODE, 0, b"old"))
        disk.follow(self.entry(Kind.SYNCING, INODE, 2))
        disk.follow(self.entry(Kind.SYNCED, INODE, 2, b=5))
        assert (("one", b""),) in self.lefts(disk)

    def test_a_name_is_durable_with_a_sync_of_its_folder_only(self, tmp_path: Path) -> None:
        disk, path = self.disk(tmp_path)
        other = str(tmp_path / "two").encode()
        disk.follow(self.entry(Kind.CREATE, OTHER, data=other))
        disk.follow(self.entry(Kind.SYNCING, OTHER, 2))
        disk.follow(self.entry(Kind.SYNCED, OTHER, 2))
        assert self.lefts(disk) == {(("one", b""),), (("one", b""), ("two", b""))}
        disk.follow(self.entry(Kind.RENAME, data=other + b"\0" + path))
        assert self.lefts(disk) == {(("one", b""),), (("one", b""), ("two", b""))}
        disk.follow(self.entry(Kind.SYNCING, tmp_path.stat().st_ino, 3))
        disk.follow(self.entry(Kind.SYNCED, tmp_path.stat().st_ino, 3))
        assert self.lefts(disk) == {(("one", b""),)}
        disk.follow(self.entry(Kind.UNLINK, data=path))
        assert self.lefts(disk) == {(("one", b""),), ()}

    def test_what_was_cut_away_does_not_come_again(self, tmp_path: Path) -> None:
        disk, _ = self.disk(tmp_path)
        disk.follow(self.entry(Kind.WRITE, INODE, 0, b"abcdef"))
        disk.follow(self.entry(Kind.SIZE, INODE, 2))
        disk.follow(self.entry(Kind.SIZE, INODE, 4))
        assert disk.left(Newest()) == {"one": b"ab\0\0"}
