"""A share of `python -m tests.system.hostile`: seeded hostile messages, after which everybody lives."""

from __future__ import annotations

import random

from tests.system.hostile import run

SHARE = 6_000


def test_hostile_messages_end_nobody() -> None:
    run(SHARE, random.SystemRandom().randrange(2**32))
