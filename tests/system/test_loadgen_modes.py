"""flux-loadgen's modes sub, rpc and codec against real sockets and processes: short, and exact in their counts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from flux import codec
from flux.errors import FluxError
from flux.feed import synth
from flux.feed.push import Feed
from flux.loadgen.plan import NS_PER_S, Plan, Servers
from flux.loadgen.report import exit_code, report
from flux.loadgen.requests import MIX, PAGE_ROWS
from flux.loadgen.run import run
from flux.model import StreamKey
from flux.schema import messages
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer
from tests.system.verdicts import check_verdict
from tests.unit.report_schema import check

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "flux.cli.loadgen"]
KEY = StreamKey("SIM", "ONE", "1s")
FLOWING = StreamKey("SIM", "FLOWING", "1s")
STORE = 77


def carried_out(plan: Plan) -> dict[str, Any]:
    made = report(run(plan.checked(), say=lambda _: None))
    check(made)  # against the published schema
    return made


class Publisher:
    """A publisher that is told exactly what to send, once somebody has subscribed to `subscriptions` prefixes."""

    def __init__(self, subscriptions: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self._subscriptions = subscriptions

    def wait(self) -> None:
        for _ in range(self._subscriptions):
            assert self._socket.poll(PATIENCE_S * 1_000), "nobody subscribed"
            self._socket.recv()

    def rows(self, key: StreamKey, start: int, count: int = 1, *, version: int = 2, epoch: int = 1) -> None:
        topic = b"v2\x1fcandles\x1f" if version == 2 else b"candles."
        told = {"store_id": STORE, "epoch": epoch, "recorded_ns": time.time_ns()} if version == 2 else {}
        made = codec.encode(synth.candles(count, interval="1s"), key, start, version=version, **told)
        assert isinstance(made, bytes)
        self.frame(topic, made)

    def frame(self, topic: bytes, payload: bytes) -> None:
        self._socket.send_multipart([topic, payload])

    def close(self) -> None:
        self._context.destroy(linger=0)


@contextmanager
def publishing(subscriptions: int, body: Any) -> Iterator[str]:
    """A publisher whose thread waits for its subscriber, then does `body(publisher, ended)`."""
    publisher, ended = Publisher(subscriptions), threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            publisher.wait()
            body(publisher, ended)
        except BaseException as error:  # told to the test, not lost in the thread
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield publisher.endpoint
    finally:
        ended.set()
        thread.join()
        publisher.close()
    assert not failed, failed


def sub_plan(endpoint: str, **other: Any) -> Plan:
    times = {"duration_ns": NS_PER_S, "warmup_ns": NS_PER_S // 5} | other
    return Plan(mode="sub", servers=Servers(pub=endpoint), **times)


def test_sub_counts_what_a_stranger_sent() -> None:
    def body(publisher: Publisher, ended: threading.Event) -> None:
        for start in (101, 102, 105, 104, 105, 107, 100):  # 104 is late, 105 twice, 103 and 106 are missing
            publisher.rows(KEY, start)
        publisher.rows(KEY, 108, 3)
        publisher.frame(b"v2\x1fcandles\x1f", b"no frame")
        publisher.rows(StreamKey("SIM", "W\u0142oski", "1s"), 1)  # outside the grammar: not learned
        publisher.rows(KEY, 111, epoch=2)
        publisher.rows(KEY, 112, epoch=1)
        sequence = 1
        while not ended.wait(0.005):
            publisher.rows(FLOWING, sequence, 2)
            sequence += 2

    with publishing(4, body) as endpoint:
        made = carried_out(sub_plan(endpoint))
    assert exit_code(made) == 0
    assert made["rate"]["held"] is made["rate"]["target"] is None
    assert made["rate"]["achieved"] > 0
    assert made["rate"]["rows_per_s"] > made["rate"]["achieved"]
    one = next(stream for stream in made["sub"]["streams"] if stream["key"] == str(KEY))
    assert one == {
        "key": str(KEY),
        "first": 111,
        "last": 111,
        "received": 9,
        "missing": 2,
        "duplicate": 1,
        "reordered": 1,
        "outside": 1,
        "foreign": 1,
        "restarts": 1,
    }
    assert made["sub"]["streams"][0] == one, "the worst first"
    flowing = next(stream for stream in made["sub"]["streams"] if stream["key"] == str(FLOWING))
    assert (flowing["first"], flowing["received"]) == (1, flowing["last"])
    counts = made["counts"]
    assert counts["received"] == 9 + flowing["received"]
    assert (counts["missing"], counts["duplicate"], counts["reordered"], counts["corrupt"]) == (2, 1, 1, 1)
    assert counts["scheduled"] is counts["sent"] is counts["unread"] is None
    assert sum(made["sub"]["refused"].values()) == 1
    assert (made["sub"]["unlearned"], made["sub"]["streams_seen"]) == (1, 2)
    assert made["latency_ns"]["from_schedule"] is made["latency_ns"]["from_send"] is None
    assert made["latency_ns"]["from_recorded"]["max"] > 0
    assert made["sub"]["clock"]["behind"] == made["sub"]["clock"]["untimed"] == 0


def test_sub_of_version_1_has_counts_and_no_times() -> None:
    def body(publisher: Publisher, ended: threading.Event) -> None:
        for start in (1, 2, 4, 5):
            publisher.rows(KEY, start, version=1)
        sequence = 1
        while not ended.wait(0.005):
            publisher.rows(FLOWING, sequence, version=1)
            sequence += 1

    with publishing(1, body) as endpoint:
        made = carried_out(sub_plan(endpoint, topics=("candles.",), rate=1_000_000))
    assert made["rate"]["held"] is False, "a rate was expected"
    assert exit_code(made) == 6
    assert made["counts"]["missing"] == 1
    assert "from_recorded" not in made["latency_ns"]
    assert made["sub"]["clock"]["untimed"] > 0
    assert made["intervals"][-1]["p50"] is None


def interrupted_after(command: list[str], line: str) -> tuple[int, dict[str, Any], str]:
    """A run that gets Ctrl-C once its stderr has said `line`: its exit code, report and text."""
    with subprocess.Popen(
        [*COMMAND, *command, "--json", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            said = ""
            while line not in said:
                said = process.stderr.readline()
                assert said, "it ended early"
            process.send_signal(signal.SIGINT)
            out, text = process.communicate(timeout=2 * PATIENCE_S)
        finally:
            process.kill()
    made = json.loads(out)
    check(made)
    return process.returncode, made, text


def test_sub_of_a_server_that_loses_every_tenth_message_until_ctrl_c(tmp_path: Path) -> None:
    key = StreamKey("FEED", "LOSSY", "1s")
    rows, expected = synth.candles(101 * 64, interval="1s"), 101 * 64 - 10 * 64
    with FluxServer(tmp_path / "data", "--gap-every", "10", "--durability", "process", faulty=True) as server:
        command = [*COMMAND, "--mode", "sub", "--pub", server.pub, "--duration", "5m", "--warmup", "0s"]
        with subprocess.Popen(
            [*command, "--topic", "FEED/*/1s", "--json", "-"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            try:
                process.stderr.readline()  # a second went by: its subscription has arrived
                with Feed("FEED", ingest=server.ingest, chunk_rep=server.rpc) as feed:
                    for at in range(0, len(rows), 64):
                        feed.send(key.symbol, key.interval, rows[at : at + 64])
                        feed.flush(PATIENCE_S)  # so that each 64 rows are one message
                received = 0
                while received < expected:
                    found = re.search(r"received +([\d,]+)", process.stderr.readline())
                    assert found, "it ended early"
                    received += int(found[1].replace(",", ""))
                process.send_signal(signal.SIGINT)
                out, text = process.communicate(timeout=2 * PATIENCE_S)
            finally:
                process.kill()
    assert process.returncode == 130
    made = json.loads(out)
    assert made["complete"] is False
    assert "INTERRUPTED" in text
    counts = made["counts"]
    assert (counts["received"], counts["missing"]) == (expected, 640)
    assert (counts["duplicate"], counts["reordered"], counts["corrupt"]) == (0, 0, 0)
    (stream,) = made["sub"]["streams"]
    assert (stream["key"], stream["first"], stream["last"]) == (str(key), 1, 101 * 64)


def test_sub_of_nobody_is_an_error() -> None:
    with pytest.raises(FluxError, match="no publisher at"):
        carried_out(sub_plan("tcp://127.0.0.1:1"))


# ------------------------------------------------------------------ rpc


def test_rpc_asks_a_server_of_its_own_and_checks_every_answer() -> None:
    plan = Plan(mode="rpc", rate=50, streams=3, duration_ns=NS_PER_S, warmup_ns=NS_PER_S // 5)
    made = carried_out(plan)
    check_verdict(made, exit_code(made))
    counts = made["counts"]
    assert (counts["scheduled"], counts["sent"], counts["received"]) == (60, 60, 60)
    assert (counts["missing"], counts["corrupt"]) == (0, 0)
    assert counts["duplicate"] is counts["reordered"] is None
    said = made["rpc"]
    assert {kind: each["answered"] for kind, each in said["kinds"].items()} == {
        kind: MIX.count(kind) * 6 for kind in set(MIX)
    }
    assert said["rows"] == 48 * PAGE_ROWS
    assert (said["errors"], said["faults"], said["strays"]) == ({}, {}, 0)
    assert said["background_rows_per_s"]["asked"] == 1_000
    assert said["background_rows_per_s"]["committed"] > 0
    assert made["rate"]["bytes_per_s"] > 64 * made["rate"]["rows_per_s"] > 0
    assert made["latency_ns"]["from_schedule"]["min"] >= made["latency_ns"]["from_send"]["min"] > 0
    assert made["generator"]["slip_ns"]["max"] > 0


def test_rpc_asks_a_given_server(tmp_path: Path) -> None:
    with FluxServer(tmp_path / "data", "--ingest", "tcp://127.0.0.1:*") as server:
        with Feed("FEED", ingest=server.ingest, chunk_rep=server.rpc) as feed:
            for symbol, rows in (("A", 300), ("B", 2_500)):
                feed.send(symbol, "1s", synth.candles(rows, interval="1s"))
            feed.flush(PATIENCE_S)
        plan = Plan(mode="rpc", rate=50, duration_ns=NS_PER_S, warmup_ns=0, servers=Servers(rpc=server.rpc))
        made = carried_out(plan)
    assert (made["counts"]["sent"], made["counts"]["received"], made["counts"]["corrupt"]) == (50, 50, 0)
    assert made["config"]["streams"] == 2
    assert made["rpc"]["background_rows_per_s"] is None
    assert 40 * 300 <= made["rpc"]["rows"] <= 40 * PAGE_ROWS


def test_rpc_at_a_rate_that_nobody_can_hold_says_so() -> None:
    plan = Plan(mode="rpc", rate=1_000_000, streams=1, duration_ns=NS_PER_S // 10, warmup_ns=0)
    made = carried_out(plan)
    assert made["rate"]["held"] is False
    assert exit_code(made) == 6
    counts = made["counts"]
    assert counts["scheduled"] == 100_000 > counts["sent"] == counts["received"] > 0
    assert counts["send_blocked"] > 0
    assert made["latency_ns"]["from_schedule"]["max"] > made["latency_ns"]["from_send"]["max"]
    assert made["generator"]["slip_ns"]["max"] > NS_PER_S


def test_rpc_counts_what_is_never_answered_as_missing() -> None:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind("tcp://127.0.0.1:*")
    endpoint = router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
    ended = threading.Event()

    def answer_the_list_alone() -> None:
        status = {
            "key": KEY,
            "stream_id": 1,
            "latest_sequence": 5_000,
            "latest_ts_ms": 1,
            "server_time_ms": 1,
            "first_sequence": 1,
        }
        while not ended.is_set():
            if router.poll(100):
                *back, payload = router.recv_multipart()
                request = codec.decode(payload)
                if isinstance(request, codec.StreamListRequest):
                    told = {"correlation_id": request.correlation_id, "schema_version": 2}
                    streams = [] if request.after_stream_id else [status]
                    reply = messages.stream_list_response(streams=streams, has_more=False, **told)
                    router.send_multipart([*back, reply])

    thread = threading.Thread(target=answer_the_list_alone)
    thread.start()
    try:
        plan = Plan(
            mode="rpc", rate=50, duration_ns=NS_PER_S // 5, warmup_ns=0, servers=Servers(rpc=endpoint)
        )
        for _ in range(5):  # a machine that stalls for more than the run and its grace asks less, and says so
            made = carried_out(plan)
            assert made["counts"]["scheduled"] == 10
            if made["counts"]["sent"] == 10:
                break
    finally:
        ended.set()
        thread.join()
        context.destroy(linger=0)
    counts = made["counts"]
    assert (counts["sent"], counts["received"], counts["missing"], counts["corrupt"]) == (10, 0, 10, 0)
    assert made["rpc"]["errors"] == {"RequestTimeout": 10}
    assert exit_code(made) == 6


def test_rpc_ends_with_the_numbers_so_far_and_takes_its_server_with_it() -> None:
    code, made, text = interrupted_after(
        ["--mode", "rpc", "--rate", "20", "--streams", "1", "--duration", "5m", "--warmup", "0s"], "received"
    )
    assert code == 130
    assert made["complete"] is False
    assert "INTERRUPTED" in text
    assert made["counts"]["sent"] == made["counts"]["received"] >= 20
    assert made["counts"]["missing"] == made["counts"]["corrupt"] == 0


def test_nothing_stays_behind_a_killed_rpc_run(tmp_path: Path) -> None:
    flags = ["--mode", "rpc", "--rate", "20", "--streams", "1", "--duration", "5m", "--warmup", "0s"]
    process = subprocess.Popen(
        [*COMMAND, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stderr is not None
    try:
        assert "received" in process.stderr.readline()
        assert list(tmp_path.iterdir())
    finally:
        process.kill()
        process.wait()
    process.communicate(
        timeout=2 * PATIENCE_S
    )  # its processes hold the other end of this pipe: it ends when they have
    assert not list(tmp_path.iterdir()), "the server's data"


# ------------------------------------------------------------------ codec


def test_codec_goes_as_fast_as_it_can() -> None:
    made = carried_out(Plan(mode="codec", rows=3, streams=5, duration_ns=NS_PER_S // 5, warmup_ns=0))
    assert exit_code(made) == 0
    assert made["rate"]["held"] is None
    counts = made["counts"]
    assert counts["sent"] == counts["received"] > 0
    assert counts["corrupt"] == 0
    assert counts["scheduled"] is counts["missing"] is counts["reordered"] is None
    for direction in ("encode", "decode"):
        numbers = made["codec"][direction]
        assert numbers["ns_per_message"] == pytest.approx(3 * numbers["ns_per_row"], rel=0.01)
        assert numbers["message_ns"]["p50"] > 0
    assert made["latency_ns"]["from_schedule"] is None


def test_codec_at_a_rate() -> None:
    plan = Plan(mode="codec", rate=1_000, rows=2, duration_ns=NS_PER_S // 2, warmup_ns=NS_PER_S // 10)
    made = carried_out(plan)
    check_verdict(made, exit_code(made))
    counts = made["counts"]
    assert (counts["scheduled"], counts["sent"], counts["received"], counts["corrupt"]) == (
        1200,
        1200,
        1200,
        0,
    )
    assert made["latency_ns"]["from_schedule"]["min"] >= made["latency_ns"]["from_send"]["min"] > 0


def test_codec_ends_with_the_numbers_so_far() -> None:
    code, made, text = interrupted_after(["--mode", "codec", "--duration", "5m", "--warmup", "0s"], "rows")
    assert code == 130
    assert made["complete"] is False
    assert "\nINTERRUPTED: " in f"\n{text}"
    assert made["counts"]["received"] > 0
