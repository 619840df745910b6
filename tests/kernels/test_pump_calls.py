"""How the pump calls libzmq: directly or by way of pyzmq, through signals, and until the context ends."""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import zmq
import zmq.backend.cython._zmq

from flux.kernels import pump as kernel
from flux.model import RUN, RowKind
from flux.transport import pump
from flux.transport.pump import Drained, Receiver, Sender
from tests.kernels.pumped import KEY, STORE, Pumped, frame_of, rows_of
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


class SignalledError(Exception):
    """What a signal's handler raises here."""


@contextmanager
def handled(number: signal.Signals) -> Iterator[None]:
    def handle(_: int, __: FrameType | None) -> None:
        raise SignalledError

    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


class TestChosenAtImport:
    SCRIPT = """
import ctypes, sys

class Lacking(ctypes.CDLL):
    def __getattr__(self, name):
        if name in sys.argv[1:]:
            raise AttributeError(f"undefined symbol: {name}")
        return super().__getattr__(name)

ctypes.CDLL = Lacking
from flux.transport import pump
from tests.kernels.pumped import KEY, Pumped, frame_of

with Pumped(tcp=False) as client:
    slot = client.add()
    client.send(frame_of(KEY, 1, 3), frame_of(KEY, 4, 2))
    assert client.receive()[0]["rows"].tolist() == [3, 2]
    assert client.streams.ring(slot).contiguous == 5
    print(pump.NATIVE, client.receiver.native, pump.Sender(client.source, client.streams).native)
"""

    def said(self, *missing: str) -> tuple[str, str]:
        ran = subprocess.run(
            [sys.executable, "-c", self.SCRIPT, *missing],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.strip(), ran.stderr

    @pytest.mark.parametrize("missing", kernel.ZMQ_FUNCTIONS[::3])
    def test_without_one_of_the_functions_it_goes_through_pyzmq(self, missing: str) -> None:
        told, warned = self.said(missing)
        assert told == "False False False"
        assert f"undefined symbol: {missing}" in warned

    def test_with_all_of_them_it_does_not(self) -> None:
        assert self.said("zmq_nothing") == ("True True True", "")


INTERRUPTING = """
#include <errno.h>
#include <signal.h>
int (*zmq_receives)(void *, void *, int), (*zmq_sends)(void *, const void *, unsigned long, int), (*zmq_error)(void);
int calls_left, calls_before, calls, interrupted; /* behind `calls_before`, `calls_left` calls are interrupted */
static int now(void) {
    if (calls++ < calls_before || calls_left <= 0) return interrupted = 0;
    calls_left--;
    raise(SIGUSR1);
    return interrupted = 1;
}
int recv_or_signal(void *m, void *s, int f) { return now() ? -1 : zmq_receives(m, s, f); }
int send_or_signal(void *s, const void *d, unsigned long n, int f) { return now() ? -1 : zmq_sends(s, d, n, f); }
int error_or_signal(void) { return interrupted ? EINTR : zmq_error(); }
"""


class Interrupting:
    """libzmq, with signals that come in the middle of its calls."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler")
        source, made = folder / "interrupting.c", folder / "interrupting.so"
        source.write_text(INTERRUPTING)
        subprocess.run([compiler, "-shared", "-fPIC", source, "-o", made], check=True)
        self.code = ctypes.CDLL(str(made))
        library = ctypes.CDLL(zmq.backend.cython._zmq.__file__)
        self.real = [self.address(getattr(library, name)) for name in kernel.ZMQ_FUNCTIONS]
        self.table = list(self.real)
        for pointer, ours, name in (
            ("zmq_receives", "recv_or_signal", "zmq_msg_recv"),
            ("zmq_sends", "send_or_signal", "zmq_send"),
            ("zmq_error", "error_or_signal", "zmq_errno"),
        ):
            number = kernel.ZMQ_FUNCTIONS.index(name)
            ctypes.c_void_p.in_dll(self.code, pointer).value = self.real[number]
            self.table[number] = self.address(getattr(self.code, ours))

    @staticmethod
    def address(function: object) -> int:
        return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]  # a foreign function

    def interrupt(self, left: int, at: int = 0) -> None:
        for name, value in (("calls_left", left), ("calls_before", at), ("calls", 0)):
            ctypes.c_int.in_dll(self.code, name).value = value

    @property
    def left(self) -> int:
        return ctypes.c_int.in_dll(self.code, "calls_left").value


class TestSignals:
    @pytest.fixture
    def interrupting(self, tmp_path: Path) -> Iterator[Interrupting]:
        made = Interrupting(tmp_path)
        kernel.bind(made.table)
        yield made
        kernel.bind(made.real)

    @pytest.fixture
    def client(self, interrupting: Interrupting) -> Iterator[Pumped]:
        with Pumped() as made:
            made.add()
            yield made

    def sent(self, client: Pumped, count: int) -> None:
        """Messages 1 to `count`, each of one row, all of which lie in the socket: one PUB is in order."""
        client.send(*(frame_of(KEY, first, 1) for first in range(1, count + 1)))
        assert client.sink.poll(PATIENCE_S * 1_000)

    def test_between_messages_the_handler_runs_and_what_arrived_is_told(
        self, client: Pumped, interrupting: Interrupting
    ) -> None:
        self.sent(client, 5)
        client.receive()
        client.send(frame_of(KEY, 6, 1), frame_of(KEY, 7, 1))
        assert client.sink.poll(PATIENCE_S * 1_000)
        with handled(signal.SIGUSR1):
            interrupting.interrupt(1, at=2)  # behind the two frames of a message
            with pytest.raises(SignalledError):
                client.receiver.receive()
            assert interrupting.left == 0
            assert client.receiver.arrivals["start"][0] == 6, "it was there before the handler ran"
            assert client.streams.ring(0).contiguous >= 6
            interrupting.interrupt(3)
            with pytest.raises(SignalledError):
                client.receiver.receive()
            assert interrupting.left == 2, "at the first, with nothing taken"
        with handled_quietly() as count:
            client.receive()
        assert (count[0], interrupting.left) == (2, 0)
        assert client.streams.ring(0).window(1, 9).tobytes() == rows_of(RowKind.CANDLE, 1, 7).tobytes()

    def test_within_a_message_its_frames_stay_together(
        self, client: Pumped, interrupting: Interrupting
    ) -> None:
        self.sent(client, 4)
        with handled_quietly() as count:
            interrupting.interrupt(3, at=1)
            client.receive()
        assert (count[0] > 0, interrupting.left) == (True, 0)
        assert client.counted == {}
        assert client.streams.ring(0).contiguous == 4

    def test_sending_goes_on_behind_it(self, interrupting: Interrupting) -> None:
        with Pumped(server=True, tcp=False) as server, zmq.Context() as context:
            out, into = context.socket(zmq.PUSH), context.socket(zmq.PULL)
            into.bind("inproc://sent")
            out.connect("inproc://sent")
            slot = server.add()
            server.receiver.kernel.offer(slot, rows_of(RowKind.CANDLE, 1, 6))
            server.record(server.receiver.arrivals[:1], max_rows=1)
            with handled_quietly() as count:
                interrupting.interrupt(4, at=3)
                sent = Sender(out, server.streams).send(server.group)
            assert (sent.sent, interrupting.left, count[0] > 0) == (6, 0, True)
            assert [len(into.recv_multipart()) for _ in range(6)] == [2] * 6
            out.close()
            into.close()

    @pytest.mark.usefixtures("both_ways")
    def test_real_ones_in_the_middle_of_waiting_and_receiving(self) -> None:
        """Handlers that count cost nothing; each message is placed once, whichever way the calls go."""
        many, enough = 3_000, threading.Event()
        main = threading.main_thread().ident
        assert main is not None

        def disturb() -> None:
            while not enough.wait(1e-3):
                signal.pthread_kill(main, signal.SIGUSR1)

        with Pumped() as client, handled_quietly() as count:
            slot = client.add(rows=4_096)
            thread = threading.Thread(target=disturb)
            thread.start()
            try:
                client.send(*(frame_of(KEY, first, 1) for first in range(1, many + 1)))
                client.receive()
                while not count[0]:
                    client.sink.poll(1)
            finally:
                enough.set()
                thread.join()
            assert client.streams.ring(slot).contiguous == many
            assert client.counted == {}

    @pytest.mark.usefixtures("both_ways")
    def test_a_handler_that_raises_ends_the_wait(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        with Pumped() as client, handled(signal.SIGUSR1):
            client.add()
            timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))

            def wait() -> None:  # the timer starts where its signal is awaited, however late that is
                timer.start()
                client.sink.poll(PATIENCE_S * 1_000)

            with pytest.raises(SignalledError):
                wait()
            timer.join()
            client.send(frame_of(KEY, 1, 1))
            assert client.receive()[0]["rows"].tolist() == [1]

    def test_what_pyzmq_raises_comes_out_of_the_call_behind_what_arrived(self) -> None:
        """An exception within pyzmq's own recv or send is carried past the C code."""
        calls = 0

        def receive(socket: zmq.Socket[bytes], flags: int) -> tuple[bytes, bool] | int:
            nonlocal calls
            calls += 1
            if calls == 3:  # behind the two frames of the first message
                raise SignalledError
            return pump._receive_frame(socket, flags)

        def refuse(socket: zmq.Socket[bytes], frame: bytes, flags: int) -> int:
            raise SignalledError

        with pytest.MonkeyPatch.context() as patch, Pumped() as client:
            patch.setattr(pump, "NATIVE", False)
            client.receiver = Receiver(client.sink, client.streams)
            client.add()
            self.sent(client, 3)
            kernel.bind_python(receive, refuse)
            try:
                arrivals, status = client.receiver.receive()
                assert (arrivals["start"].tolist(), status) == ([1], Drained.SOCKET_ERROR)
                with pytest.raises(SignalledError):
                    client.receiver.receive()
                client.receive()
                assert client.streams.ring(0).contiguous == 3
                offering = Receiver(None, client.streams, server=True)
                offering.kernel.offer(0, rows_of(RowKind.CANDLE, 4, 1))
                pump.record(client.streams, client.group, offering.inbox, one_run(4), store_id=1, epoch=1)
                with pytest.raises(SignalledError):
                    Sender(client.source, client.streams).send(client.group)
            finally:
                kernel.bind_python(pump._receive_frame, pump._send_frame)


def one_run(first: int) -> np.ndarray:
    """One row of stream 0, at the beginning of the inbox."""
    runs = np.zeros(1, RUN)
    runs["rows"], runs["first"] = 1, first
    return runs


@contextmanager
def handled_quietly() -> Iterator[list[int]]:
    """SIGUSR1 is counted."""
    count = [0]

    def handle(_: int, __: FrameType | None) -> None:
        count[0] += 1

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        yield count
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("both_ways")
class TestTheContextEnds:
    def test_what_arrived_is_told_first_and_then_the_end(self) -> None:
        context = zmq.Context()
        source, sink = context.socket(zmq.PUSH), context.socket(zmq.PULL)
        sink.bind("inproc://ending")
        source.connect("inproc://ending")
        with Pumped(server=True, tcp=False) as server:
            receiver = Receiver(sink, server.streams, server=True)
            source.send(frame_of(KEY, 1, 1))
            while receiver.unknown is None:
                receiver.receive()
            ending = threading.Thread(target=context.term)
            ending.start()
            try:
                with pytest.raises(zmq.ContextTerminated):
                    wait_until_ended(source)
                server.add(owner=1)
                receiver.kernel.add_run(b"SIM", STORE, 0, 1)
                arrivals, status = receiver.receive()
                assert (arrivals["rows"].tolist(), status) == ([1], Drained.SOCKET_ERROR)
                for _ in range(2):
                    with pytest.raises(zmq.ContextTerminated):
                        receiver.receive()
            finally:
                source.close(0)
                sink.close(0)
                ending.join(PATIENCE_S)
            assert not ending.is_alive()

    def test_sending_says_so_and_spoils_nothing(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.PUB)
        with Pumped(server=True, tcp=False) as server:
            slot = server.add()
            server.receiver.kernel.offer(slot, rows_of(RowKind.CANDLE, 1, 3))
            server.record(server.receiver.arrivals[:1], max_rows=1)
            before = bytes(server.group.data)
            sender = Sender(socket, server.streams)
            assert sender.send(server.group).sent == 3
            ending = threading.Thread(target=context.term)
            ending.start()
            try:
                with pytest.raises(zmq.ContextTerminated):
                    wait_until_ended(socket)
                order = np.arange(3, dtype=np.uint32)
                with pytest.raises(zmq.ContextTerminated):
                    sender.send(server.group, order, np.ones(3, np.uint8))
            finally:
                socket.close(0)
                ending.join(PATIENCE_S)
            assert not ending.is_alive()
            assert bytes(server.group.data) == before


def wait_until_ended(socket: zmq.Socket[bytes]) -> None:
    """Until a call on the socket says that its context has ended."""
    while True:
        socket.poll(10, zmq.POLLIN)
        socket.getsockopt(zmq.EVENTS)
