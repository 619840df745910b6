"""A subscriber that really loses: the publisher's queue for it is full, and libzmq drops what comes then.

Nothing here hangs on speed, as long as the publisher sends within the stop what two queues of HWM messages and the
kernel's buffers do not hold, and the steady subscriber is not further behind than its own queue.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from flux.loadgen.plan import HWM
from flux.loadgen.report import EXIT_NOT_HELD, EXIT_OK
from tests.patience import PATIENCE_S
from tests.unit.report_schema import check

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

RATE, STOP_MS, RUN_MS, STREAMS = 90_000, 9_000, 9_200, 16
ATTEMPTS = 3
COMMAND = [
    *(sys.executable, "-m", "flux.cli.loadgen", "--rate", str(RATE), "--streams", str(STREAMS)),
    *("--duration", f"{RUN_MS}ms", "--warmup", "0s", "--stopped", "1", "--stop", f"{STOP_MS}ms@0s"),
    *("--fail-if", "missing>0", "--json", "-"),
]

assert RATE * STOP_MS // 1_000 > 2 * HWM * 2


def measured() -> tuple[int, dict[str, Any]]:
    """A run in which the steady subscriber lost nothing: where the machine stalls for seconds, it is repeated."""
    for _ in range(ATTEMPTS):
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=4 * PATIENCE_S, check=False)
        assert done.stdout, done.stderr
        made = json.loads(done.stdout)
        if not made["counts"]["missing"]:
            return done.returncode, made
    pytest.fail(f"the steady subscriber lost rows in each of {ATTEMPTS} runs: {made['counts']}")


def test_what_a_full_queue_dropped_is_missing_to_the_row_and_the_steady_one_has_all() -> None:
    code, made = measured()
    check(made)
    sent = RATE * RUN_MS // 1_000
    counts = made["counts"]
    assert (counts["scheduled"], counts["sent"], counts["received"]) == (sent, sent, sent)
    steady, stopped = made["subscribers"]
    assert (steady["kind"], steady["counts"]["received"], steady["faulty_streams"]) == ("steady", sent, 0)
    assert stopped["kind"] == "stopped"
    begin, end = stopped["stopped_ns"]
    assert end - begin >= STOP_MS * 1_000_000
    lost = stopped["counts"]
    assert lost["missing"] > 0
    assert lost["received"] >= HWM
    assert lost["received"] + lost["missing"] == sent
    assert (lost["duplicate"], lost["reordered"], lost["corrupt"], lost["refused"]) == (0, 0, 0, 0)
    # Of each stream as many as of the next: messages go round the streams, and each is lost or here.
    assert stopped["faulty_streams"] == STREAMS == len(stopped["streams"])
    assert sum(stream["missing"] for stream in stopped["streams"]) == lost["missing"]
    assert {stream["stream"] for stream in stopped["streams"]} == set(range(STREAMS))
    # The report's own numbers and its verdict are those of the steady one.
    assert [gate["pass"] for gate in made["gates"]] == [True]
    assert code == (EXIT_OK if made["rate"]["held"] else EXIT_NOT_HELD)
