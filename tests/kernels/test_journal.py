"""The journal kernel against its oracle: every cut, every flipped bit, hostile bytes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.kernels import journal as kernel
from tests.oracle import journal as oracle


def scanned(data: bytes, start: int = 0, version: int = kernel.FORMAT) -> oracle.Scan:
    records, committed, end, tail, stop, resumes, version, number, before = kernel.scan(data, start, version)
    found = [
        (
            oracle.u64(records, at),
            oracle.u32(records, at + 8),
            oracle.u32(records, at + 12),
        )
        for at in range(0, len(records), 16)
    ]
    return oracle.Scan(found, committed, end, tail, kernel.STOPS[stop], resumes, number, version, before)


def same(data: bytes, start: int = 0, version: int = kernel.FORMAT) -> oracle.Scan:
    """The kernel's answer, once it is the oracle's; from an odd address too."""
    expected = oracle.scan(data, start, version)
    assert scanned(data, start, version) == expected
    odd = memoryview(b"x" + data)[1:]
    assert scanned(odd, start, version) == expected  # type: ignore[arg-type]  # a buffer all the same
    return expected


def example_file(
    groups: int = 4, *, lag: int = 0, preallocated: int = 256, version: int = kernel.FORMAT
) -> tuple[bytes, list[int]]:
    """A small file, and the offsets behind its COMMITs; `lag` groups are written before one is synced."""
    data = oracle.file_header(7, version, 0xABCD)
    ends: list[int] = []
    for i in range(groups):
        records = [oracle.record(4, b"heads")] if i == 0 else [
            oracle.batch(b"v2\x1fcandles\x1f", bytes(range(i, i + 30 + 3 * i))),
            oracle.record(3, b"position" * i),
            oracle.record(2, b""),
        ]  # fmt: skip
        synced = ends[-1 - lag] if len(ends) > lag else 0
        data += oracle.group(len(data), synced, records, version)
        ends.append(len(data))
    return data + bytes(preallocated), ends


VERSIONS = pytest.mark.parametrize("version", range(kernel.OLDEST_FORMAT, kernel.FORMAT + 1))


@VERSIONS
def test_whole_file(version: int) -> None:
    data, ends = example_file(version=version)
    found = same(data)
    assert (found.version, found.before) == (version, 0xABCD)
    assert found.committed == found.end == found.tail == ends[-1]
    assert (found.reason, found.resumes, found.number, len(found.records)) == ("end", False, 7, 14)
    at, size, kind = found.records[0]
    assert (data[at : at + size], kind) == (b"heads", 4)
    behind = same(data, ends[0], version)
    assert behind.records == found.records[2:]
    assert same(data, ends[-1], version).records == []
    assert same(data, ends[0], 3 - version).records == [], (
        "groups of the two formats are not taken for each other"
    )


def test_cut_at_every_byte_loses_only_groups_behind_the_cut() -> None:
    data, ends = example_file(preallocated=0)
    for cut in range(len(data) + 1):
        zeros = same(data[:cut] + bytes(len(data) - cut))
        short = same(data[:cut])
        for found in (zeros, short):
            whole = [end for end in ends if end <= cut]
            # A COMMIT whose last bytes are padding is whole a little before its end, where zeros follow.
            allowed = {max(whole, default=24), *(end for end in ends if cut < end <= cut + 8)}
            assert found.committed in allowed if cut >= 24 else found.committed in (0, 24)
            assert not found.resumes


@VERSIONS
def test_any_flipped_bit_is_found_and_says_where(version: int) -> None:
    data, ends = example_file(version=version)
    for bit in range(8 * ends[-1]):
        at = bit // 8
        damaged = bytearray(data)
        damaged[at] ^= 1 << bit % 8
        found = same(bytes(damaged))
        assert found.committed == max((end for end in ends if end <= at), default=24 if at >= 24 else 0)
        assert found.reason != "end"
        # Damage is told from a torn tail wherever a later group knew the place to be on the disk.
        assert found.resumes == (at < ends[-2])


def test_zeroed_page_in_the_middle_is_damage_when_it_was_synced_and_a_torn_tail_when_not() -> None:
    for lag, damage in ((0, True), (3, False)):
        data, ends = example_file(5, lag=lag)
        zeroed = data[: ends[1]] + bytes(ends[2] - ends[1]) + data[ends[2] :]
        found = same(zeroed)
        assert (found.committed, found.reason, found.resumes) == (ends[1], "end", damage)
        assert found.tail == ends[-1] - 4


def test_commit_of_a_failed_attempt_closes_nothing() -> None:
    """A group that was written but failed to sync, then overwritten by a shorter one of the same shape."""
    one = oracle.batch(b"t", b"p" * 17)
    start = oracle.file_header(1)
    failed = oracle.group(24, 0, [one, one, one])
    good = oracle.group(24, 0, [one])
    found = same(start + good + failed[len(good) :] + bytes(64))
    assert (found.committed, found.resumes) == (24 + len(good), False)


@pytest.mark.parametrize("version", [0, kernel.FORMAT + 1, 2**32 - 1])
def test_another_format_is_not_read(version: int) -> None:
    data = oracle.file_header(1, version) + bytes(64)
    records, committed, *_, stop, _, found, number, _ = kernel.scan(data, 0, kernel.FORMAT)
    assert (bytes(records), committed, kernel.STOPS[stop], found, number) == (b"", 0, "format", version, 1)


def moved(records: list[bytes], groups: list[bytes], data: bytes) -> bytes:
    """The file with the records of its second group in another order, or others in their place."""
    before, after = b"".join(groups), b"".join(records)
    assert data.count(before) == 1
    assert len(before) == len(after)
    return data.replace(before, after)


@pytest.mark.parametrize("change", ["places", "body", "topic"])
def test_valid_records_in_each_others_place_are_found(change: str) -> None:
    """D15: every record's own CRC holds, and a CRC over body and its CRC is a constant."""
    one, other = oracle.batch(b"one", b"p" * 40), oracle.batch(b"one", b"q" * 40)
    after = {"places": [other, one], "body": [one, one], "topic": [oracle.batch(b"two", b"p" * 40), other]}
    for version in (kernel.OLDEST_FORMAT, kernel.FORMAT):
        data = oracle.file_header(1, version)
        start = len(data)
        data += oracle.group(start, 0, [one, other], version) + bytes(64)
        found = same(moved(after[change], [one, other], data))
        if version > 1 or change == "topic":
            assert (found.committed, found.reason) == (start, "group")
        else:
            assert found.reason == "end", "format 1 did not notice"


def test_hostile_lengths_are_not_believed() -> None:
    for length in (0, 1, 3, 4, 5, 2**31, 2**32 - 1, 2**32 - 13):
        for kind in (0, 1, 2, 6, 2**32 - 1):
            head = oracle.sealed(length.to_bytes(4, "little") + kind.to_bytes(4, "little"))
            for body in (b"", b"\xff" * 64, bytes(64)):
                same(oracle.file_header(1) + head + body)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(0, 6), st.sampled_from([1, 2]))
def test_random_damage(seed: int, lag: int, count: int, version: int) -> None:
    """Bytes overwritten, zeroed, copied about and cut: kernel and oracle agree."""
    rng = random.Random(seed)
    data = bytearray(example_file(6, lag=lag, version=version)[0])
    for _ in range(count):
        at, size = rng.randrange(len(data)), rng.choice([1, 8, 40, 100])
        other = rng.randrange(len(data))
        data[at : at + size] = rng.choice([bytes(size), rng.randbytes(size), data[other : other + size]])
    same(bytes(data[: rng.choice([len(data), rng.randrange(len(data) + 1)])]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5, 7]), st.binary(max_size=70)), max_size=12))
def test_group_is_byte_for_byte_the_oracles(contents: list[tuple[int, bytes]]) -> None:
    group = kernel.Group(4096, 64)
    records = []
    for kind, content in contents:
        body = b"\x01\x00t" + oracle.sealed(content) if kind == 1 else content
        assert group.append(kind, body, 5, 6)
        records.append(oracle.record(kind, body))
    size = group.seal(24, 16)
    assert bytes(group)[:size] == oracle.group(24, 16, records)
    assert group.used == size - kernel.COMMIT_SIZE == sum(map(len, records))


def test_full_group_refuses_and_stays_as_it_was() -> None:
    group = kernel.Group(200, 2)
    assert not group.append(2, bytes(200), 0, 0)
    assert group.append(2, bytes(100), 0, 0)
    before = bytes(group)
    assert not group.append(2, bytes(50), 0, 0)
    assert bytes(group) == before
    assert group.append(2, b"", 0, 0)
    assert not group.append(2, b"", 0, 0), "two records at most"
    group.clear()
    assert (group.used, group.count, bytes(group)) == (0, 0, b"")


@pytest.mark.parametrize("size", [0, 1, 20, 63, 64, 65, 4096])
def test_checksum_and_last_byte(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert kernel.crc32c(data) == oracle.crc32c(data)
    for zeros in (0, 1, 63, 64, 200):
        assert kernel.last_byte(data + b"\1" + bytes(zeros), 0) == size + 1
        assert kernel.last_byte(data + bytes(zeros), size) == size
