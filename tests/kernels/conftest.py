"""What the tests of several kernels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flux.transport import pump


@pytest.fixture(scope="module", params=[True, False], ids=["native", "pyzmq"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Every receiver and sender calls libzmq directly, then every one goes through pyzmq."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pump, "NATIVE", request.param)
        yield request.param
