"""What bad input gets on the command line: the message, the exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from flux import journal
from flux.cli.main import main
from flux.codec import crc32c
from flux.feed import synth
from flux.journal.records import FORMAT, HeadsRecord, pack
from flux.schema import messages
from flux.server.storage.directory import DirectoryLock
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.processes import Flux, FluxServer, wait_until
from tests.system.served_rows import stored

pytestmark = pytest.mark.system

HEADER = b"ts_ms,open,high,low,close,volume\n"
STOP_S = 25.0  # 5 s are promised: five times that on a machine with other things to do
LOCAL = ("--pub", "tcp://127.0.0.1:*", "--rpc", "tcp://127.0.0.1:*")


def line(minute: int, high: str = "2.0") -> bytes:
    return f"{synth.FIRST_TS_MS + 60_000 * minute},1.0,{high},0.5,1.5,{minute}\n".encode()


GOOD = HEADER + b"".join(map(line, range(5)))


def said(*arguments: str | Path) -> tuple[int, str]:
    """The exit code of a `flux` command and what it wrote to its standard error."""
    with Flux(*arguments) as process:
        code = process.wait()
        return code, process.errors()


class Refused(Protocol):
    """`flux serve` that does not get as far as serving: its exit code and standard error."""

    def __call__(self, data: Path, *arguments: str | Path) -> tuple[int, str]: ...


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Iterator[Refused]:
    """In this process, because starting one takes ten times as long as refusing."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(data: Path, *arguments: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        # What is accepted after all is served until it is told to end: exit 0, and the test says so.
        end = threading.Timer(STOP_S, os.kill, (os.getpid(), signal.SIGTERM))
        signal.signal(signal.SIGTERM, lambda *_: None)  # should it come when nothing is served any more
        end.start()
        try:
            code = main(["serve", *LOCAL, "--data", str(data), *map(str, arguments)])
        except SystemExit as leaving:  # argparse's way
            code = int(str(leaving.code))
        finally:
            end.cancel()
            end.join()
        return code, capsys.readouterr().err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def serve_whole(data: Path, file: Path, rows: int, *arguments: str) -> str:
    """Serve a file until all of it is committed, and stop; what was said on the standard error."""
    with FluxServer(data, "--replay", file, *arguments) as server:
        wait_until(lambda: head(server) == rows, f"{rows} rows")
        assert server.stop() == 0
        return server.errors()


def head(server: FluxServer) -> int:
    with Sockets() as sockets:
        requester = Requester(sockets, server.rpc)
        streams = requester.ask(messages.stream_list_request, timeout=PATIENCE_S).streams
        return streams[0].latest_sequence if streams else 0


def sample(folder: Path, rows: int = 500) -> tuple[Path, NDArray[np.void]]:
    made = synth.candles(rows, seed=2)
    synth.write_csv(folder / "SAMPLE.csv", made)
    return folder / "SAMPLE.csv", made


def check_kept(data: Path, rows: NDArray[np.void]) -> None:
    sequences, kept = stored(data / "flux.duckdb")
    assert np.array_equal(sequences, np.arange(1, len(rows) + 1, dtype=np.uint64))
    assert kept.tobytes() == rows.tobytes()


# Files to replay


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory with rows in it, which no refusal below may touch."""
    folder = tmp_path_factory.mktemp("kept")
    file, rows = sample(folder)
    serve_whole(folder / "data", file, len(rows))
    yield folder / "data"
    check_kept(folder / "data", rows)
    serve_whole(folder / "data", file, len(rows))
    check_kept(folder / "data", rows)


@pytest.mark.parametrize(
    ("name", "content", "where", "why"),
    [
        ("missing column", GOOD.replace(b"close,", b""), ":1:27: ", "missing column close"),
        ("spaces", GOOD.replace(b",", b" "), ":1:1: ", "line 1 has one field"),
        ("CR alone", GOOD.replace(b"\n", b"\r"), ":1:33: ", "is not text: byte 0x0d"),
        ("1e309", GOOD + line(5, high="1e309"), ":7:19: ", "'1e309' is too large for a double"),
        ("not a number", GOOD + line(5, high="NaN"), ":7:19: ", "'NaN' is not finite"),
        ("high below low", GOOD + line(5, high="0.25"), ":7:19: ", "high below low"),
        ("duplicate time", GOOD + line(4), ":7:1: ", "duplicate time"),
        ("too few fields", GOOD + b"1,2\n", ":7:4: ", "2 fields instead of 6"),
        ("escape", GOOD + line(5, high="\x1b[31m"), ":7:19: ", r"'\x1b[31m' is no number"),
        ("empty file", b"", ": ", "is empty"),
        ("header alone", HEADER, ": ", "has no rows"),
        ("binary", bytes(range(256)), ":1:1: ", "is not text: byte 0x00"),
        ("no header", line(1).replace(b",", b",7,7,", 1), ":1:1: ", "no header"),
    ],
)
def test_a_faulty_file(
    refused: Refused, kept: Path, tmp_path: Path, name: str, content: bytes, where: str, why: str
) -> None:
    file = tmp_path / "FAULTY.csv"
    file.write_bytes(content)
    code, text = refused(kept, "--replay", file)
    assert code == 2, name
    assert f"flux serve: {file}{where}" in text
    assert why in text
    assert "Traceback" not in text
    assert "\x1b" not in text


def test_a_file_that_cannot_be_read(refused: Refused, kept: Path, tmp_path: Path) -> None:
    (tmp_path / "FOLDER.csv").mkdir()
    (tmp_path / "PLAIN.csv").write_bytes(GOOD)
    (tmp_path / "DANGLING.csv").symlink_to("nowhere")
    for name, why in (
        ("MISSING.csv", "no such file"),
        ("FOLDER.csv", "is a directory"),
        ("DANGLING.csv", "no such file"),
        ("PLAIN.csv/x.csv", "cannot be read: Not a directory"),  # root may read everything else
    ):
        assert refused(kept, "--replay", tmp_path / name) == (2, f"flux serve: {tmp_path / name}: {why}\n")


def test_a_fault_far_into_a_file_stops_the_server_and_mending_it_goes_on(tmp_path: Path) -> None:
    file, rows = sample(tmp_path, 12_000)
    good = file.read_bytes()
    lines = good.split(b"\n")
    lines[9_000] = lines[8_999]
    file.write_bytes(b"\n".join(lines))
    with FluxServer(tmp_path / "data", "--replay", file) as server:
        assert server.wait() == 2, "it ends by itself"
        assert f"{file}:9001:1: duplicate time" in server.errors()
    file.write_bytes(good)
    serve_whole(tmp_path / "data", file, len(rows))
    check_kept(tmp_path / "data", rows)


def test_skip_bad_rows_counts_them_and_lists_the_first_ten(tmp_path: Path) -> None:
    file = tmp_path / "FAULTY.csv"
    bad = [line(40 + i, high="nan") for i in range(12)]
    file.write_bytes(GOOD + b"".join(bad) + line(60) + line(60) + line(61))
    text = serve_whole(tmp_path / "data", file, 7, "--skip-bad-rows")
    assert "skipped 13 faulty rows, the first 10:" in text
    for number in range(7, 17):
        assert f"  {file}:{number}:19: high: 'nan' is not finite\n" in text
    assert f"{file}:17:" not in text
    sequences, kept = stored(tmp_path / "data" / "flux.duckdb")
    assert sequences.tolist() == list(range(1, 8))
    assert ((kept["ts_ms"] - synth.FIRST_TS_MS) // 60_000).tolist() == [0, 1, 2, 3, 4, 60, 61]


def test_a_replayed_file_whose_read_part_changed(refused: Refused, tmp_path: Path) -> None:
    file, rows = sample(tmp_path)
    serve_whole(tmp_path / "data", file, len(rows))
    good = file.read_bytes()
    changed = good.replace(b".1", b".2", 1)
    for content in (changed, good[: len(good) // 2]):
        file.write_bytes(content[: content.rindex(b"\n") + 1])
        code, text = refused(tmp_path / "data", "--replay", file)
        assert code == 4
        assert f"{file} is not the file that was read before: its first 500 rows differ" in text
    check_kept(tmp_path / "data", rows)
    file.write_bytes(good + b"%d,1,2,0.5,1.5,3\n" % (int(rows["ts_ms"][-1]) + 60_000))  # grown: fine
    serve_whole(tmp_path / "data", file, len(rows) + 1)


# Directories and ports


def test_a_data_directory_in_use(tmp_path: Path) -> None:
    with FluxServer(tmp_path / "data") as server:
        before, start = cpu_of_children(), time.monotonic()
        code, text = said("serve", *LOCAL, "--data", tmp_path / "data")
        assert (code, text) == (3, f"flux serve: {tmp_path / 'data'} is in use by process {server.pid}\n")
        # A second on a machine with nothing else to do.
        assert cpu_of_children() - before < 5.0
        assert time.monotonic() - start < PATIENCE_S, "and it waits for nothing"
        assert server.stop() == 0


def cpu_of_children() -> float:
    """Seconds that processes started here took of the processors, once they were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("flag", ["--pub", "--rpc", "--ingest"])
def test_a_port_in_use(refused: Refused, tmp_path: Path, flag: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        code, text = refused(tmp_path / "data", flag, taken)
        assert (code, text) == (3, f"flux serve: {taken} is in use by another process\n")
    DirectoryLock(tmp_path / "data").release()  # no longer in use


@pytest.mark.parametrize("flag", ["--pub", "--rpc", "--ingest"])
@pytest.mark.parametrize("endpoint", ["tcp://*:5556", "tcp://0.0.0.0:5556", "tcp://[::]:5556"])
def test_a_bind_that_others_can_reach(refused: Refused, tmp_path: Path, flag: str, endpoint: str) -> None:
    code, text = refused(tmp_path / "data", flag, endpoint)
    assert code == 2
    for way in (repr(endpoint), "tunnel (ssh -L)", "CURVE keys", "--insecure"):
        assert way in text


def test_insecure_warns(tmp_path: Path) -> None:
    with FluxServer(tmp_path / "data", "--insecure", pub="tcp://0.0.0.0:*") as server:
        assert server.stop() == 0
        assert "open to every machine that reaches it" in server.errors()


# Data that needs a decision


def test_a_newer_directory(refused: Refused, tmp_path: Path) -> None:
    serve_whole(tmp_path / "data", *sample_of_ten(tmp_path))
    path = tmp_path / "data" / "identity"
    before = path.read_bytes()
    path.write_text(json.dumps(json.loads(before) | {"format": FORMAT + 1}))
    code, text = refused(tmp_path / "data")
    assert code == 4
    assert f"has format {FORMAT + 1}, this flux reads {FORMAT}: upgrade flux-marketdata" in text
    path.write_bytes(before)
    with FluxServer(tmp_path / "data") as server:
        assert server.state == "OK"


def test_a_newer_journal(refused: Refused, tmp_path: Path) -> None:
    serve_whole(tmp_path / "data", *sample_of_ten(tmp_path))
    path = journal.path_of(tmp_path / "data", 1)
    with open(path, "r+b") as file:
        header = bytearray(file.read(20))
        struct.pack_into("<I", header, 8, journal.FORMAT + 1)
        file.seek(0)
        file.write(header + struct.pack("<I", crc32c(bytes(header))))
    before = path.read_bytes()
    code, text = refused(tmp_path / "data")
    assert code == 4
    newer = (
        f"the journal has format {journal.FORMAT + 1}, this flux reads {journal.FORMAT}: install a newer flux"
    )
    assert newer in text
    assert path.read_bytes() == before


def test_newer_records_in_a_journal_that_reads(refused: Refused, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    heads = pack(HeadsRecord(FORMAT + 1, 7, 1, [], [], {}))
    journal.Journal.create(data, heads, file_bytes=1 << 18).close(clean=False)
    before = journal.path_of(data, 1).read_bytes()
    code, text = refused(data)
    assert code == 4
    assert f"has format {FORMAT + 1}, this flux reads {FORMAT}: upgrade flux-marketdata" in text
    assert journal.path_of(data, 1).read_bytes() == before


def sample_of_ten(folder: Path) -> tuple[Path, int]:
    return sample(folder, 10)[0], 10


def test_a_journal_that_is_gone(refused: Refused, tmp_path: Path) -> None:
    serve_whole(tmp_path / "data", *sample_of_ten(tmp_path))
    path = journal.path_of(tmp_path / "data", 1)
    path.rename(tmp_path / "elsewhere")
    code, text = refused(tmp_path / "data")
    assert code == 4
    assert "had a journal (epoch 1) and has none now" in text
    (tmp_path / "elsewhere").rename(path)
    with FluxServer(tmp_path / "data") as server:
        assert server.state == "OK"


# Flags, values, verbs


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--nope",), "unrecognized arguments: --nope"),
        (("--durability", "half"), "--durability is disk or process, not 'half'"),
        (("--replay", "F", "--speed", "fast"), "--speed is max or a number, not 'fast'"),
        (("--replay", "F", "--speed", "-1"), "speed must be above 0"),
        (("--replay", "F", "--tick", "soon"), "'soon' is not a time; write it like 1h, 20s"),
        (("--replay", "F", "--tick", "0s"), "tick must be above 0"),
        (("--replay", "F", "--tick", "1s", "--batch-rows", "0"), "batch-rows must be above 0"),
        (("--replay", "F", "--limit", "x"), "'x' is not a whole number"),
        (("--replay", "F", "--limit", "-1"), "'-1' is negative"),
        (("--replay", "A/B=F"), "'A/B=F': there is no such file, and what stands before = is no key"),
        (("--replay", "A/B/7m=F"), "'A/B/7m=F': there is no such file, and what stands before = is no key"),
        (("--replay", "A/\x1b[31m/1m=F"), r"'A/\x1b[31m/1m=F': there is no such file"),
        (("--pub", "nonsense"), "'nonsense' is no endpoint: write it like tcp://"),
        (("--pub", "tcp://127.0.0.1:99999"), "a port is at most 65535"),
        (("--data", "F"), "cannot use F as data directory"),
    ],
)
def test_a_wrong_flag_or_value(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("F").write_bytes(GOOD)
    code, text = refused(tmp_path / "data", *arguments)
    assert code == 2
    assert why in text
    assert "Traceback" not in text
    assert "\x1b" not in text


def test_a_wrong_environment(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "FILE.csv").write_bytes(GOOD)
    for name, value, why in (
        ("FLUX_SOURCE_ID", "a b", "source 'a b' is not 1 to 32"),
        ("FLUX_DURABILITY", "half", "disk or process, not 'half'"),
        ("FLUX_LOG", "loud", "FLUX_LOG is debug, info, warning, error or critical, not 'loud'"),
    ):
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            code, text = refused(tmp_path / "data", "--replay", tmp_path / "FILE.csv")
        assert code == 2, name
        assert why in text


def test_an_unknown_verb() -> None:
    assert said("serv") == (2, "flux: no verb 'serv'; did you mean serve? (flux --help lists them)\n")
    assert said("xyzzy") == (2, "flux: no verb 'xyzzy' (flux --help lists them)\n")
    code, text = said()
    assert code == 2
    assert "verbs:\n" in text


# Ctrl-C


def test_ctrl_c_drains(tmp_path: Path) -> None:
    file, rows = sample(tmp_path, 8_000)
    with FluxServer(tmp_path / "data", "--replay", file, "--tick", "1ms", "--batch-rows", "8") as server:
        wait_until(lambda: head(server) > 500, "some rows")
        started = time.monotonic()
        os.kill(server.pid, signal.SIGINT)
        assert server.wait() == 130
        assert time.monotonic() - started < STOP_S
        assert "Traceback" not in server.errors()
    with FluxServer(tmp_path / "data", "--replay", file) as server:
        assert server.state == "OK"
        wait_until(lambda: head(server) == len(rows), "the rest")
        assert server.stop() == 0
    check_kept(tmp_path / "data", rows)


def test_ctrl_c_twice_leaves_at_once_and_the_next_start_is_clean(tmp_path: Path) -> None:
    file, rows = sample(tmp_path, 8_000)
    with FluxServer(tmp_path / "data", "--replay", file, "--tick", "1ms", "--batch-rows", "8") as server:
        wait_until(lambda: head(server) > 500, "some rows")
        os.kill(server.pid, signal.SIGINT)
        wait_until(lambda: gone_after_another(server), "its end")
        assert server.wait() == 130
    with FluxServer(tmp_path / "data", "--replay", file) as server:
        assert server.state == "OK"
        wait_until(lambda: head(server) == len(rows), "the rest")
        assert server.stop() == 0
    check_kept(tmp_path / "data", rows)


def gone_after_another(server: FluxServer) -> bool:
    if server.process.poll() is None:
        os.kill(server.pid, signal.SIGINT)
        return False
    return True
