"""What a power cut could leave of a data directory: images of the disk, made from a recording (log.py).

For any moment of a recording an image holds

    pages     of 4 KiB: each as the last sync of its file left it, or as any later write did, page by page at random
    sizes     of files: likewise, apart from the pages
    names     that were made, moved or removed since the last sync of their folder: any of these changes or none

A sync of a file makes its pages and its size durable, as far as they were written before the sync began; its name is
durable only with a sync of its folder. A rename happens whole or not at all. That is less than file systems promise
(ext4 and xfs keep names in order), so an image may be worse than one that is ever seen, never better than one that is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.disk.log import Entry, Kind

PAGE = 4096

T = TypeVar("T")


class Choice:
    """Which of several versions a disk holds: for an image as a whole the old ones, the new ones, or some of each."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._old, self._new = rng.choice(((1.0, 0.0), (0.0, 1.0), (0.8, 0.15), (0.15, 0.8), (0.4, 0.4)))

    def __call__(self, versions: list[tuple[int, T]]) -> T:
        if len(versions) == 1:
            return versions[0][1]
        drawn = self._rng.random()
        if drawn < self._old:
            return versions[0][1]
        if drawn < self._old + self._new:
            return versions[-1][1]
        return self._rng.choice(versions)[1]

    def happens(self) -> bool:
        """Whether one change of names is on the disk."""
        return self([(0, False), (1, True)])


class Newest(Choice):
    """What a reader sees while the machine runs: the newest of everything."""

    def __init__(self) -> None:
        """There is nothing to choose."""

    def __call__(self, versions: list[tuple[int, T]]) -> T:
        return versions[-1][1]


@dataclass(slots=True)
class File:
    """The versions of each page and of the size that the disk may hold: the durable one, then those written since, with
    the number of the entry that brought them."""

    pages: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=lambda: [(-1, 0)])
    pending: set[int] = field(default_factory=set)
    """Pages with more than one version."""

    def write(self, at: int, offset: int, data: bytes) -> None:
        for page in range(offset // PAGE, (offset + len(data) - 1) // PAGE + 1):
            versions = self.pages.setdefault(page, [(-1, bytes(PAGE))])
            begin, end = max(offset, page * PAGE), min(offset + len(data), (page + 1) * PAGE)
            now = versions[-1][1]
            inside = begin - page * PAGE
            made = now[:inside] + data[begin - offset : end - offset] + now[inside + end - begin :]
            if made != now:
                versions.append((at, made))
                self.pending.add(page)
        self.resize(at, max(self.sizes[-1][1], offset + len(data)))

    def resize(self, at: int, size: int) -> None:
        before = self.sizes[-1][1]
        if size == before:
            return
        if size < before:  # what is cut away is zeros if the file grows again
            for page in [page for page in self.pages if (page + 1) * PAGE > size]:
                keep = max(0, size - page * PAGE)
                self.pages[page].append((at, self.pages[page][-1][1][:keep] + bytes(PAGE - keep)))
                self.pending.add(page)
        self.sizes.append((at, size))

    def sync(self, begun: int) -> None:
        """What was written before entry `begun` is durable."""
        for page in list(self.pending):
            self.pages[page] = _since(self.pages[page], begun)
            if len(self.pages[page]) == 1:
                self.pending.discard(page)
        self.sizes = _since(self.sizes, begun)

    def left(self, choose: Choice) -> bytes:
        """One of the contents that the disk may hold."""
        size = choose(self.sizes)
        made = bytearray(size)
        for page, versions in self.pages.items():
            begin = page * PAGE
            if begin < size:
                content = versions[0][1] if len(versions) == 1 else choose(versions)
                made[begin : min(begin + PAGE, size)] = content[: size - begin]
        return bytes(made)


def _since(versions: list[tuple[int, T]], begun: int) -> list[tuple[int, T]]:
    """Without those that a sync, begun at that entry, made old."""
    first = max((at for at, version in enumerate(versions) if version[0] < begun), default=0)
    return versions[first:]


_FOLDER = -1  # in place of a file's number


class Naming(NamedTuple):
    """A change of names by entry `at`: `path` is to be `file`'s (None: nobody's), and `gone` nobody's."""

    at: int
    path: str
    file: int | None
    gone: str = ""


class Disk:
    """A data directory as it follows a recording, entry by entry: what is durable, and what is not yet."""

    def __init__(self, root: Path, base: Mapping[str, tuple[int, bytes | None]]) -> None:
        """`root` is the directory that was recorded; `base` what it held when that began, all of it durable."""
        self._root = str(root)
        self._files: list[File] = []
        self._current: dict[int, int] = {}  # inode -> file: an inode is given out again once its file is gone
        self._now: dict[str, int] = {}
        self._durable: dict[str, int] = {}
        self._namings: list[Naming] = []
        self._folders: dict[int, str] = {}
        self._begun: dict[int, tuple[int, int]] = {}  # number of a sync -> its first entry, its inode
        self.at = -1
        """The last entry that was followed."""
        for name, (inode, content) in base.items():
            path = f"{root}/{name}" if name else self._root
            number = _FOLDER
            if content is None:
                self._folders[inode] = path
            else:
                number = self._new(inode)
                self._files[number].write(-1, 0, content)
                self._files[number].sync(0)
            self._now[path] = self._durable[path] = number

    def follow(self, entry: Entry) -> None:
        """One more entry happened."""
        self.at += 1
        file = self._files[self._current[entry.inode]] if entry.inode in self._current else None
        if entry.kind in (Kind.WRITE, Kind.STORE):
            assert file is not None, "every file is seen when it is made"
            if entry.kind is Kind.WRITE or file.sizes[-1][1] > entry.a:
                file.write(self.at, entry.a, entry.data)
        elif entry.kind is Kind.SIZE:
            assert file is not None, "every file is seen when it is made"
            file.resize(self.at, entry.a)
        elif entry.kind is Kind.CREATE:
            self._name(entry.path, self._new(entry.inode))
        elif entry.kind is Kind.LINK:
            self._name(entry.path, self._current[entry.inode])
        elif entry.kind is Kind.RENAME:
            old, new = entry.data.decode().split("\0")
            self._name(new, self._now.get(old), gone=old)
        elif entry.kind is Kind.UNLINK:
            self._name(entry.path, None)
        elif entry.kind is Kind.FOLDER:
            self._folders[entry.inode] = entry.path
            self._name(entry.path, _FOLDER)
        elif entry.kind is Kind.SYNCING:
            self._begun[entry.a] = (self.at, entry.inode)
        elif entry.kind is Kind.SYNCED and entry.b == 0:
            self._sync(*self._begun[entry.a])
        elif entry.kind is Kind.START:
            self._begun.clear()

    def left(self, choice: Choice) -> dict[str, bytes]:
        """An image: the files below the root, by their path from there."""
        names = dict(self._durable)
        for naming in self._namings:
            if choice.happens():
                _apply(names, naming)
        found = {}
        for path, number in names.items():
            folder = path.rpartition("/")[0]
            if number != _FOLDER and folder in names:
                found[path[len(self._root) + 1 :]] = self._files[number].left(choice)
        return found

    def _new(self, inode: int) -> int:
        self._files.append(File())
        self._current[inode] = len(self._files) - 1
        return self._current[inode]

    def _name(self, path: str, file: int | None, gone: str = "") -> None:
        naming = Naming(self.at, path, file, gone)
        _apply(self._now, naming)
        self._namings.append(naming)

    def _sync(self, begun: int, inode: int) -> None:
        folder = self._folders.get(inode)
        if folder is None:
            self._files[self._current[inode]].sync(begun)
            return
        kept = []
        for naming in self._namings:
            if naming.at < begun and naming.path.rpartition("/")[0] == folder:
                _apply(self._durable, naming)
            else:
                kept.append(naming)
        self._namings = kept


def _apply(names: dict[str, int], naming: Naming) -> None:
    names.pop(naming.gone, None)
    if naming.file is None:
        names.pop(naming.path, None)
    else:
        names[naming.path] = naming.file


def draw(
    disk: Disk, entries: list[Entry], rng: random.Random, count: int
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """`count` images of moments of a recording, in order: the number of the last entry that happened, and the files.

    A third of the moments lie around a change of names or sizes or a start or end, which are rare beside the writes,
    and a sixth at the end of a life.
    """
    usual = (Kind.WRITE, Kind.STORE, Kind.SYNCING, Kind.SYNCED)
    rare = [at for at, entry in enumerate(entries) if entry.kind not in usual]
    ends = [at - 1 for at, entry in enumerate(entries) if entry.kind is Kind.START and at] + [
        len(entries) - 1
    ]
    moments = []
    for _ in range(count):
        kind = rng.random()
        at = rng.choice(ends) if kind < 1 / 6 else rng.choice(rare) + rng.randint(-2, 4)
        at = at if kind < 1 / 2 else rng.randrange(len(entries))
        moments.append(min(max(at, 0), len(entries) - 1))
    for moment in sorted(moments):
        while disk.at < moment:
            disk.follow(entries[disk.at + 1])
        yield moment, disk.left(Choice(rng))


def base_of(root: Path) -> dict[str, tuple[int, bytes | None]]:
    """The inode of everything in a directory, itself ("") included, and the content of what is a file."""
    found: dict[str, tuple[int, bytes | None]] = {"": (root.stat().st_ino, None)}
    for path in root.rglob("*"):
        found[str(path.relative_to(root))] = (
            path.stat().st_ino,
            path.read_bytes() if path.is_file() else None,
        )
    return found


def write(files: dict[str, bytes], folder: Path) -> None:
    """An image as a directory, which must not exist."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
