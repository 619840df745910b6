"""What modes sub, rpc and codec plan, refuse and judge, without processes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux import codec
from flux.cli.loadgen import main
from flux.cli.loadgen_flags import parser, plan_of
from flux.errors import ConfigError, NotFoundError, RequestTimeout, UnavailableError
from flux.loadgen import report, requests
from flux.loadgen.faults import Faults
from flux.loadgen.gates import Gate
from flux.loadgen.histogram import Histogram
from flux.loadgen.modes import one_process, rpc, sub
from flux.loadgen.plan import NS_PER_S, Audience, Plan, Servers
from flux.loadgen.plot import plot
from flux.loadgen.requests import MIX, PAGE_ROWS, Asking, Request, Target, error_class, fault_of
from flux.loadgen.run import run
from flux.loadgen.sample import SAMPLE_ROWS, Sample, key_of, stream_of
from flux.loadgen.schedule import Burst
from flux.loadgen.workers import caller
from flux.loadgen.workers import codec as codec_worker
from flux.loadgen.workers import sub as sub_worker
from flux.schema import messages
from tests.unit.report_schema import check

SUB = Plan(mode="sub", servers=Servers(pub="tcp://127.0.0.1:1"))
RPC = Plan(mode="rpc", rate=10)
CODEC = Plan(mode="codec")


def carried_out(plan: Plan) -> Any:
    return run(plan.checked(), say=lambda _: None)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (dataclasses.replace(SUB, servers=Servers()), "--pub"),
        (dataclasses.replace(SUB, topics=("nonsense",)), "--topic 'nonsense'"),
        (dataclasses.replace(SUB, burst=Burst(5, NS_PER_S)), "constant --rate alone"),
        (dataclasses.replace(SUB, audience=Audience(slow=1)), "no --publishers"),
        (dataclasses.replace(RPC, rate=0), "--rate"),
        (dataclasses.replace(RPC, rows=2), "no --rows"),
        (dataclasses.replace(RPC, streams=1_000), "at most 256 streams"),
        (dataclasses.replace(RPC, servers=Servers(pub="tcp://h:1")), "one endpoint"),
        (dataclasses.replace(RPC, faults=Faults(drop=2)), "no --publishers"),
        (dataclasses.replace(CODEC, publishers=2), "no --publishers"),
        (dataclasses.replace(CODEC, streams=5_000), "at most 4,096"),
        (dataclasses.replace(CODEC, servers=Servers(rpc="tcp://h:1")), "--rpc"),
        (dataclasses.replace(CODEC, topics=("candles.",)), "--topic"),
    ],
)
def test_a_plan_that_a_mode_cannot_carry_out(plan: Plan, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        carried_out(plan)


def test_topics_of_a_publisher(capsys: pytest.CaptureFixture[str]) -> None:
    assert sub_worker.prefix_of("SIM/BTC/USDT/1m") == b"v2\x1fcandles\x1fSIM\x1f1m\x1fBTC/USDT\x1f"
    assert sub_worker.prefix_of("SIM/*/trade") == b"v2\x1ftrades\x1fSIM\x1ftrade\x1f"
    assert sub_worker.prefix_of("candles.SIM.") == b"candles.SIM."
    kinds = (b"candles", b"trades", b"quotes", b"beat")
    assert sub_worker.prefixes_of(SUB) == [b"v2\x1f" + kind + b"\x1f" for kind in kinds]
    assert sub_worker.prefixes_of(dataclasses.replace(SUB, topics=("candles.",))) == [b"candles."]
    flags = ["--mode", "sub", "--pub", "tcp://h:1", "--topic", "SIM/*/1m", "--topic", "candles."]
    assert plan_of(parser().parse_args(flags)).topics == ("SIM/*/1m", "candles.")
    assert Plan.of(dataclasses.asdict(dataclasses.replace(SUB, topics=("a",)))).topics == ("a",)
    assert main(["--mode", "sub", "--pub", "tcp://h:1", "--topic", "SIM/x/7m"]) == 2
    assert "'7m'" in capsys.readouterr().err


def done_of_sub(**other: Any) -> dict[str, Any]:
    counts = ("received", "missing", "duplicate", "reordered", "corrupt", "outside", "foreign", "restarts")
    counts += ("streams_seen", "unlearned", "other_messages", "heartbeats", "missing_at_end")
    numbers = dict.fromkeys((*counts, "untimed", "behind"), 0) | {"received": 3_980}
    return {
        **numbers,
        "measured_ns": 2 * NS_PER_S,
        "measured_messages": 1_990,
        "measured_rows": 3_980,
        "measured_bytes": 1_000_000,
        "refused": {},
        "streams": [],
        "cpu": 0.25,
        "libzmq": "4.3.5",
        **other,
    }


def report_of_sub(rate: int, latency: dict[str, Histogram], **other: Any) -> dict[str, Any]:
    told = one_process.Told(done=done_of_sub(**other))
    plan = dataclasses.replace(SUB, rate=rate)
    own = sub.own_words(plan, told.complete, told.done)
    return report.report(one_process.outcome_of(plan, told, latency=latency, own=own))


def test_held_is_not_judged_without_an_expectation() -> None:
    made = report_of_sub(0, {})
    assert made["rate"] == {
        "target": None,
        "achieved": 995.0,
        "held": None,
        "rows_per_s": 1_990.0,
        "bytes_per_s": 500_000.0,
    }
    assert report.exit_code(made) == 0
    assert report.to_text(made).startswith("MEASURED: 995 messages/s\n")
    assert made["counts"]["scheduled"] is made["counts"]["sent"] is made["generator"]["slip_ns"] is None
    assert made["latency_ns"] == {"from_schedule": None, "from_send": None}


@pytest.mark.parametrize(("rate", "code"), [(1_000, 0), (1_002, 6)])
def test_an_expected_rate_is_judged(rate: int, code: int) -> None:
    assert report.exit_code(report_of_sub(rate, {})) == code


def test_what_was_timed_has_its_own_name() -> None:
    recorded = Histogram()
    recorded.record(5_000_000)
    made = report_of_sub(0, {"from_recorded": recorded})
    assert made["latency_ns"]["from_schedule"] is None
    assert made["latency_ns"]["from_recorded"]["max"] == 5_000_000
    assert "from recorded" in report.to_text(made)
    assert "wall clocks" in made["sub"]["clock"]["caveat"]


def test_the_files_of_a_report_with_nulls(tmp_path: Path) -> None:
    recorded = Histogram()
    recorded.record(5_000_000)
    for name, latency in (("timed.png", {"from_recorded": recorded}), ("untimed.png", {})):
        made = report_of_sub(0, latency)
        plot(str(tmp_path / name), made, latency)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        check(made)
    second = {"t_s": 1.0, "received": 5, "missing": 0}
    second |= dict.fromkeys(("sent", "p50", "p99", "max"))
    made["intervals"] = [second]
    assert report.to_csv(made).splitlines()[1] == "1.0,,5,0,,,"
    check(made)


def test_gates_name_what_only_some_modes_have() -> None:
    recorded = Histogram()
    recorded.record(5_000_000)
    made = report_of_sub(0, {"from_recorded": recorded}, missing=3)
    assert not Gate.parse("recorded.p99>1ms").judged(made)["pass"]
    assert Gate.parse("rows_per_s<1k").judged(made)["pass"]
    assert not Gate.parse("missing>0").judged(made)["pass"]
    assert not Gate.parse("p99>1s").judged(made)["pass"], "a number that is not there passes no gate"
    assert report.exit_code(made | {"gates": [Gate.parse("origin.max>1s").judged(made)]}) == 5


# ------------------------------------------------------------------ rpc


def targets(*heads: int) -> list[Target]:
    return [Target(key_of(n), 1, head, 1, 7) for n, head in enumerate(heads)]


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**9), st.integers(1, 5_000))
def test_a_request_follows_from_seed_and_number(seed: int, k: int, head: int) -> None:
    asked = Asking(seed, targets(head, 2 * head)).request(k)
    assert asked == Asking(seed, targets(head, 2 * head)).request(k)
    assert asked.kind == MIX[k % len(MIX)]
    if asked.kind == "backfill":
        assert 0 <= asked.after <= max(0, asked.target.head - PAGE_ROWS)
        assert asked.head == asked.target.head


def test_the_mix_and_its_spread() -> None:
    asking = Asking(1, targets(*[SAMPLE_ROWS] * 8))
    asked = [asking.request(k) for k in range(4_000)]
    kinds = [request.kind for request in asked]
    assert [kinds.count(kind) for kind in requests.KINDS] == [3_200, 400, 400]
    assert {stream_of(request.target.key) for request in asked} == set(range(8))
    afters = [request.after for request in asked if request.kind == "backfill"]
    assert min(afters) < 100
    assert max(afters) > SAMPLE_ROWS - PAGE_ROWS - 100


def page(request: Request, rows: Any, **other: Any) -> Any:
    slots = {"start_sequence": request.after + 1, "has_more": True, **other}
    return codec.decode(codec.encode_backfill(request.target.key, rows=rows, **slots))


def test_a_page_is_checked_to_the_row() -> None:
    sample, (target,) = Sample(3), targets(SAMPLE_ROWS)
    request = Request("backfill", target, after=500, head=SAMPLE_ROWS)
    right = sample.rows(0, 501, PAGE_ROWS)
    assert fault_of(request, page(request, right), sample) is None
    assert fault_of(request, page(request, right), None) is None
    assert fault_of(request, page(request, right[:10]), sample) is None  # the rest of it is to be asked for
    short = page(request, right[:10], has_more=False)
    assert fault_of(request, short, sample) == "another number of rows"
    assert fault_of(request, page(request, right[:0]), sample) == "another number of rows"
    elsewhere = page(request, right, start_sequence=502)
    assert fault_of(request, elsewhere, sample) == "a page that begins elsewhere"
    assert fault_of(request, page(request, right, status=4), sample) == "status 4"
    assert (
        fault_of(request, page(request, sample.rows(1, 501, PAGE_ROWS)), sample)
        == "other rows than were sent"
    )
    wrong = right.copy()
    wrong["low"][7] = wrong["high"][7] + 1
    assert fault_of(request, page(request, wrong), None) == "candles that cannot be"
    stranger = codec.decode(codec.encode_backfill(key_of(1), rows=right, start_sequence=501))
    assert fault_of(request, stranger, sample) == "another stream's answer"


def test_heads_never_go_back() -> None:
    (target,) = targets(100)
    request = Request("cursor", target, head=100)

    def cursor(head: int) -> Any:
        return codec.decode(messages.get_cursor_response(key=target.key, cursor=(head, 1)))

    assert fault_of(request, cursor(99), None) == "a head that went back"
    assert fault_of(request, cursor(105), None) is None
    assert target.head == 105
    later = Request("status", target, head=target.head)
    fault = fault_of(later, cursor(105), None)
    assert fault is not None
    assert "another kind" in fault


def test_errors_are_counted_by_class() -> None:
    assert error_class(RequestTimeout("late")) == "RequestTimeout"
    assert error_class(NotFoundError("no", 2, 404)) == "NotFoundError 2"
    assert error_class(UnavailableError("no", 0, 503)) == "UnavailableError 503"


def test_the_sample_goes_on_behind_its_end() -> None:
    sample = Sample(1)
    both = sample.rows(2, SAMPLE_ROWS - 1, 4)
    assert (np.diff(both["ts_ms"]) == 1_000).all()
    assert both["close"][2] == sample.rows(2, 1, 1)["close"][0]
    assert (sample.rows(3, 5, 3)["volume"] - sample.rows(1, 5, 3)["volume"] == 2.0).all()
    assert stream_of(key_of(17)) == 17


class Answering:
    """A requester that takes `room` requests and answers none."""

    def __init__(self, room: int) -> None:
        self.in_flight = caller.MAX_ASKS - room
        self.bytes_received = 0

    def send(self, build: Any, **slots: Any) -> int:
        self.in_flight += 1
        return self.in_flight


def test_what_finds_no_room_waits_and_is_counted_once() -> None:
    plan = Plan(mode="rpc", rate=1_000, warmup_ns=0)
    made: Any = [Answering(3), Answering(2)]
    calling = caller.Calling(plan, made, Asking(1, targets(SAMPLE_ROWS)), None)
    for _ in range(3):
        calling.ask(10, 0)
    assert (calling.sent, calling.blocked) == (5, 1)
    made[0].in_flight -= 1
    for _ in range(3):
        calling.ask(10, 0)
    assert (calling.sent, calling.blocked) == (6, 2)
    assert calling.slip.total == 6


@pytest.mark.parametrize(
    ("sent", "measured", "last_s", "held"),
    [(100, 100, 10.0, True), (99, 100, 10.0, False), (100, 98, 10.0, False), (100, 100, 10.2, False)],
)
def test_an_rpc_rate_is_held_or_not(sent: int, measured: int, last_s: float, held: bool) -> None:
    plan = Plan(mode="rpc", rate=10, duration_ns=10 * NS_PER_S, warmup_ns=0)
    done = {"scheduled": 100, "sent": sent, "measured": measured, "last_ns": int(last_s * NS_PER_S)}
    assert rpc._rate(plan, True, done | {"measured_rows": 0, "measured_bytes": 0})["held"] is held


# ------------------------------------------------------------------ codec


@pytest.mark.parametrize("rows", [1, 3])
def test_every_message_is_compared(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    coding = codec_worker.Coding(Plan(mode="codec", streams=3, rows=rows, warmup_ns=0))
    coding.block(7, 0)
    coding.single(0, 0)
    assert (coding.messages, coding.wrong, coding.measured) == (8, 0, 8)
    real = codec.decode

    def spoilt(frame: Any) -> Any:
        other = bytearray(frame)
        other[-9] ^= 1  # in the last row, behind what is checksummed once more
        other[-4:] = codec.crc32c(other[:-4]).to_bytes(4, "little")
        return real(bytes(other))

    monkeypatch.setattr(codec, "decode", spoilt)
    coding.block(5, 0)
    coding.single(0, 0)
    assert (coding.messages, coding.wrong) == (14, 6)
