"""What each place says of its streams, for the judge (`checker.py`): read from outside of flux wherever that can be."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import duckdb
import numpy as np

from flux.model import ROW_DTYPES, StreamKey
from tests.system.checker import Account, Case, judge
from tests.system.processes import Flux
from tests.system.served_rows import TABLES


def kept(path: Path, place: str) -> dict[StreamKey, Account]:
    """Every stream of a database that nobody has open: a server's, or a client's cache (what it set aside is not)."""
    found = {}
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [column[0] for column in connection.execute("DESCRIBE streams").fetchall()]
        mine = "WHERE NOT aside" if "aside" in names else ""
        streams = f"SELECT stream_id, source_id, symbol, interval FROM streams {mine} ORDER BY stream_id"
        for number, *parts in connection.execute(streams).fetchall():
            key = StreamKey(*parts)
            dtype = ROW_DTYPES[key.kind]
            columns = connection.execute(
                f"SELECT sequence, epoch, {', '.join(dtype.names or ())} FROM {TABLES[key.kind]}"
                f" WHERE stream_id = {number} ORDER BY sequence"
            ).fetchnumpy()
            rows = np.zeros(len(columns["sequence"]), dtype)
            for name in dtype.names or ():
                rows[name] = columns[name]
            found[key] = Account(
                place, columns["epoch"].astype(np.uint32), columns["sequence"].astype(np.uint64), rows
            )
    return found


def rebuilt(data: Path, copy: Path) -> dict[StreamKey, Account]:
    """Every stream of the database that `flux rebuild` makes of a stopped server's journal, in a copy without another
    database to look at."""
    copy.mkdir()
    for name in ("identity", "fence"):
        shutil.copy2(data / name, copy / name)
    shutil.copytree(data / "journal", copy / "journal")
    with Flux("rebuild", copy) as process:
        assert process.wait() == 0, process.errors()
    found = kept(copy / "flux.duckdb", "rebuilt from the journal")
    shutil.rmtree(copy)
    return found


def check(cases: Iterable[Case]) -> None:
    """Fail with everything that the judge finds."""
    found = [str(violation) for case in cases for violation in judge(case)]
    assert not found, "\n".join(found)
