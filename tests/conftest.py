"""Options of the test run: how long the long tests are. CI takes a share; docs/testing.md says the whole."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair, not a property of the code. In CI hypothesis has a profile of its
# own (no deadline, the same examples each time), which stays what it is.
settings.register_profile(
    "flux", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("flux")

SHARED = Path(os.environ.get("FLUX_SHARED", Path(__file__).parents[2] / "shared"))
"""Real data, beside the project when it is there."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cycles", type=int, default=20, help="kills of each kind in the kill -9 tests (20)")
    parser.addoption("--fuzz-seconds", type=float, default=20.0, help="how long to fuzz the kernels (20)")
    parser.addoption(
        "--messages", type=int, default=20_000, help="random messages of a differential test (20,000)"
    )
    parser.addoption("--images", type=int, default=150, help="disks that a power cut may leave (150)")
    parser.addoption(
        "--calls", default="18", help="calls that are made to fail, or `all` of a server's life (18)"
    )
    parser.addoption("--seed", type=int, default=None, help="seed of the random system tests (random)")


MOST_LEFT_OPEN = 64
"""Descriptors; what a test leaves to the garbage collector is fewer. `select` in the libraries below ends at 1,024."""


@pytest.fixture(autouse=True)
def descriptors_are_closed() -> Iterator[None]:
    """A test that leaves many files or sockets open fails itself, not one that comes after it."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    left = len(os.listdir("/proc/self/fd")) - before
    assert left <= MOST_LEFT_OPEN, f"{left} descriptors more are open than before the test"


@pytest.fixture
def cycles(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--cycles"))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Seeded by --seed, else at random; the seed is printed, and shown when the test fails."""
    seed = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(2**32) if seed is None else int(seed)
    print(f"seed {seed}: run again with --seed {seed}")
    return random.Random(seed)


@pytest.fixture
def real_month() -> Path:
    path = SHARED / "data" / "btc_perp_1m.csv"
    if not path.exists():
        pytest.skip("the real month is not beside the project (FLUX_SHARED)")
    return path
