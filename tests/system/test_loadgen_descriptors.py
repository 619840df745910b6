"""A load generator with many descriptors open starts its server all the same."""

from __future__ import annotations

import pytest

from flux.loadgen.plan import Plan
from flux.loadgen.workers.server_process import ServerProcess
from tests.high_descriptors import low_descriptors_taken

pytestmark = pytest.mark.system


def test_a_server_is_started_whatever_the_number_of_its_pipe() -> None:
    with low_descriptors_taken(), ServerProcess(Plan(mode="through")) as server:
        assert server.store_id
