"""The Nth call of a server's life fails: that is said once, nothing acknowledged is lost, and it goes on (S10).

CI draws 18 of them; `tools/test tests/system/test_nth_call.py --calls all` lets N rise, for each errno, until whole
lives pass without meeting it. What counts, and what is excused: tests/disk/nth.py.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from tests.disk.nth import FAILURES, Trial, earlier_life, trial

pytestmark = pytest.mark.system

AT_ONCE = 2
USUAL = {errno.ENOSPC: 60, errno.EIO: 110, errno.EMFILE: 45, errno.ENOMEM: 40, errno.EINTR: 110, 0: 40}
"""Calls of one life that can fail so, about; the whole campaign counts for itself."""


class Campaign:
    """Trials, with a directory of each kind to begin from: by turns new and old, `disk` and `process`."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder = folder
        self._turn = rng.randrange(4)
        self._before = earlier_life(folder / "before")
        self.done: list[Trial] = []

    def one(self, number: int, error: int, mode: str) -> Trial:
        kind = number + self._turn
        folder = self._folder / f"{number}-{error}-{mode}"
        before = self._before if kind // 2 % 2 else None
        made = trial(folder, number, error, mode, ("disk", "process")[kind % 2], before)
        shutil.rmtree(folder)
        print(made, flush=True)
        return made

    def all(self, error: int, mode: str) -> None:
        """N rises until four in a row, one of each kind, are not met."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for first in count(1, 4):
                made = list(pool.map(lambda number: self.one(number, error, mode), range(first, first + 4)))
                self.done += made
                if not any(one.met for one in made):
                    return


@pytest.mark.timeout(14_400)
def test_a_call_that_fails(tmp_path: Path, request: pytest.FixtureRequest, rng: random.Random) -> None:
    campaign, calls = Campaign(tmp_path, rng), str(request.config.getoption("--calls"))
    if calls == "all":
        for error, mode in FAILURES:
            campaign.all(error, mode)
    else:
        drawn = [FAILURES[at % len(FAILURES)] for at in range(int(calls))]
        numbers = [(rng.randint(1, USUAL[error]), error, mode) for error, mode in drawn]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            campaign.done += pool.map(lambda drawn: campaign.one(*drawn), numbers)
    met = [one for one in campaign.done if one.met]
    print(len(met), "calls failed:", dict(Counter(one.met.split()[0] for one in met)))
    assert len(met) > len(campaign.done) // 2, "hardly any call failed: USUAL is out of date"
    wrong = [f"{one}\n{one.said}" for one in campaign.done if one.problems]
    assert not wrong, f"{len(wrong)} of {len(campaign.done)}:\n" + "\n".join(wrong)
