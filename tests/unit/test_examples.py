"""The examples run, each as a process of its own, and say what they are for."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pickle
import pkgutil
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import zmq.asyncio

import flux
from flux import examples
from flux.codec import DecodeError
from flux.errors import NotFoundError, SourceFileError
from flux.examples import asgi_app, asyncio_service, multiprocess_worker, volume_profile
from flux.model import MAX_SEQUENCE

KEY = flux.StreamKey("SIM", "BTCUSDT", "1m")

SAY = {
    "asgi_app": [
        'POST a damaged one: 400 {"error": "checksum at byte 7856", "reason": "checksum", "offset": 7856}',
        "GET as a frame: 200 <Candles 'SIM/BTCUSDT/1m' 119..120 epoch 0>",
    ],
    "asyncio_service": ["1000 frames answered", "'error': 'checksum'", "stopped after 1001 answers"],
    "cython_extension": ["vwap of two candles, read by Cython: 17.5"],
    "multiprocess_worker": ["500 frames in 8 slots, 450000 candles", "vwap 104.5"],
    "volume_profile": ["close", "vwap", "####"],
}
"""Each example, and what stands in its output."""

NEEDS = {"asgi_app": "uvicorn", "cython_extension": "Cython", "volume_profile": "numba"}


def candles(rows: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    made = np.zeros(rows, flux.CANDLE)
    made["close"] = np.arange(rows)
    return made


def frame(start: int = 1, rows: int = 3, key: flux.StreamKey = KEY) -> bytes:
    return bytes(flux.codec.encode(candles(rows), key, start))


def test_every_example_is_run() -> None:
    assert sorted(module.name for module in pkgutil.iter_modules(examples.__path__)) == sorted(SAY)


@pytest.mark.parametrize("name", sorted(SAY))
def test_an_example_runs_by_itself(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    if name == "cython_extension" and shutil.which(os.environ.get("CC", "cc").split()[0]) is None:
        pytest.skip("no C compiler is installed")
    done = subprocess.run(
        [sys.executable, "-m", f"flux.examples.{name}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for words in SAY[name]:
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_volume_profile_prints_hours_and_levels(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba")
    volume_profile.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + volume_profile.LEVELS
    assert sum("vwap" in line for line in lines) == 3


def test_a_profile_has_all_the_volume() -> None:
    rows = volume_profile.sample(hours=1)
    rows["high"][5] = rows["low"][5]
    out = np.zeros(2 + volume_profile.LEVELS)
    volume_profile.volume_profile(rows.view(np.recarray), out)
    np.testing.assert_allclose(out[2:].sum(), rows["volume"].sum())
    assert out[:2].tolist() == [rows["low"].min(), rows["high"].max()]
    np.testing.assert_allclose(
        volume_profile.vwap(rows.view(np.recarray)), rows["turnover"].sum() / rows["volume"].sum()
    )


def test_the_service_answers_what_it_took_before_it_stops() -> None:
    async def stop_in_the_middle() -> None:
        context = zmq.asyncio.Context()
        service = asyncio_service.Service(context, "tcp://127.0.0.1:*")
        with context.socket(zmq.DEALER) as client:
            client.linger = 0
            client.connect(service.endpoint)
            for _ in range(asyncio_service.PENDING):
                await client.send(frame())
            serving = asyncio.create_task(service.serve())
            assert json.loads(await client.recv())["candles"] == 3
            service.stop()
            await serving
            for _ in range(service.answered - 1):
                assert json.loads(await client.recv())["candles"] == 3
        context.term()

    asyncio.run(stop_in_the_middle())


def test_the_service_takes_no_more_than_there_is_room_for() -> None:
    async def never_answer() -> None:
        context = zmq.asyncio.Context()
        service = asyncio_service.Service(context, "tcp://127.0.0.1:*")
        client = context.socket(zmq.DEALER)
        client.connect(service.endpoint)
        taking = asyncio.create_task(service._receive())
        for _ in range(2 * asyncio_service.PENDING):
            await client.send(frame())
        while service._taken.qsize() < asyncio_service.PENDING:
            await asyncio.sleep(0)
        for _ in range(1_000):  # turns of the loop in which it could take more
            await asyncio.sleep(0)
        assert service._taken.qsize() == asyncio_service.PENDING
        taking.cancel()
        context.destroy(linger=0)

    asyncio.run(never_answer())


def test_the_service_is_cancelled_at_once_and_closes_its_socket() -> None:
    async def cancel() -> None:
        context = zmq.asyncio.Context()
        service = asyncio_service.Service(context, "tcp://127.0.0.1:*")
        serving = asyncio.create_task(service.serve())
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        context.term()  # would wait for a socket that is open

    asyncio.run(cancel())


def test_the_service_says_what_it_does_not_take() -> None:
    trade = flux.codec.encode(np.zeros(1, flux.TRADE), flux.StreamKey("SIM", "BTCUSDT", "trade"))
    said = [json.loads(asyncio_service.answer(memoryview(sent))) for sent in (b"x", trade)]
    assert said == [{"error": "short", "offset": 1}, {"error": "Trades instead of candles", "offset": 0}]


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The application as `uvicorn` serves it, in a process of its own; its address."""
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "flux.examples.asgi_app:app", "--fd", str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait()


def told(answer: tuple[int, bytes]) -> tuple[int, dict[str, object]]:
    return answer[0], json.loads(answer[1])


def test_the_web_service_keeps_each_candle_once_and_names_what_is_missing(web: str) -> None:
    key = flux.StreamKey("SIM", "A/B C", "1m")
    for start, placed, missing in ((1, 3, []), (1, 0, []), (7, 3, [[4, 6]]), (4, 3, [])):
        status, said = told(asgi_app.call(f"{web}/frames", frame(start, key=key)))
        assert (status, said["placed"], said["missing"]) == (200, placed, missing)
    path = f"{web}/candles/SIM/A/B%20C/1m"
    status, body = asgi_app.call(f"{path}?limit=5", accept=asgi_app.FRAME)
    batch = flux.codec.decode(body)
    assert (status, batch.key, batch.start_sequence, len(batch)) == (200, key, 5, 5)
    status, said = told(asgi_app.call(path))
    assert (said["stream"], said["start_sequence"]) == ("SIM/A/B C/1m", 1)
    assert [candle["close"] for candle in said["candles"]] == [0, 1, 2] * 3
    ahead = MAX_SEQUENCE - 10  # farther than the ring reaches: it begins anew
    assert told(asgi_app.call(f"{web}/frames", frame(ahead, key=key)))[1]["placed"] == 3
    assert told(asgi_app.call(path))[1]["start_sequence"] == ahead


def test_the_web_service_refuses_a_frame_that_is_none_with_reason_and_offset(web: str) -> None:
    good = frame()
    reasons = set()
    for body in (good[:-8] + bytes([good[-8] ^ 1]) + good[-7:], good[:40], b"x", b"\xff" * 64):
        with pytest.raises(DecodeError) as refused:
            flux.codec.decode(body)
        error = refused.value
        said = {"error": str(error), "reason": error.reason, "offset": error.offset}
        assert told(asgi_app.call(f"{web}/frames", body)) == (400, said)
        reasons.add(error.reason)
    assert {"checksum", "short", "verify"} <= reasons


def test_the_web_service_refuses_what_it_cannot_keep(web: str) -> None:
    endless = candles(1)
    endless["high"] = np.inf
    trade = flux.codec.encode(np.zeros(1, flux.TRADE), flux.StreamKey("SIM", "BTCUSDT", "trade"))
    for body in (
        trade,
        bytes(flux.codec.encode(endless, KEY)),
        frame(key=flux.StreamKey("no source!", "X", "1m")),
        frame(0),
        frame(2**64 - 4),
    ):
        status, said = told(asgi_app.call(f"{web}/frames", bytes(body)))
        assert (status, list(said)) == (400, ["error"]), said
    for path, status in (
        ("/candles/SIM/NONE/1m", 404),
        ("/candles/nothing", 400),
        ("/candles/SIM/BTCUSDT/7m", 400),
        ("/elsewhere", 404),
        ("/frames", 404),
    ):
        assert told(asgi_app.call(web + path))[0] == status, path
    asgi_app.call(f"{web}/frames", frame())
    for limit in ("0", "-1", "x", "9" * 5_000, "2000"):
        assert told(asgi_app.call(f"{web}/candles/{KEY}?limit={limit}"))[0] == 400


def test_the_web_service_reads_no_more_than_a_frame_may_hold() -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": bytes(1 << 20), "more_body": True}

    with pytest.raises(asgi_app.RefusedError) as refused:
        asyncio.run(asgi_app._body(receive))
    assert refused.value.status == 413


def test_a_killed_worker_is_told_and_the_memory_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real_block, real_rows = multiprocess_worker.SharedMemory, multiprocess_worker.sample

    def remembered(**how: object) -> object:
        made.append(real_block(**how))
        return made[0]

    def killing(frames: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.void]]]:
        for number, rows in enumerate(real_rows(frames)):
            if number == 5:
                multiprocessing.active_children()[0].kill()
            yield rows

    monkeypatch.setattr(multiprocess_worker, "SharedMemory", remembered)
    monkeypatch.setattr(multiprocess_worker, "sample", killing)
    with pytest.raises(BrokenProcessPool):
        multiprocess_worker.run(1_000)
    with pytest.raises(FileNotFoundError):
        real_block(made[0].name)


def test_what_is_wrong_with_a_frame_is_told_across_processes() -> None:
    with pytest.raises(DecodeError) as here:
        multiprocess_worker.summarize(memoryview(b"short"))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as workers:
        there = workers.submit(multiprocess_worker.summarize, b"short").exception()
    assert isinstance(there, DecodeError)
    assert (there.reason, there.offset, str(there)) == (here.value.reason, here.value.offset, str(here.value))


def test_errors_survive_pickle() -> None:
    for error in (
        DecodeError("zstd", 7, "cut off"),
        SourceFileError("btc.csv", 3, 1, "no number"),
        NotFoundError("no such stream", 4, 1, 20),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
