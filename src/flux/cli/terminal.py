"""What a shell or a terminal may do to a command, and what it gets to see: one sentence and an exit code.

    Ctrl-C, or SIGTERM while it loads     it leaves at once: there is nothing yet that would have to be put away
    Ctrl-C while it runs                  KeyboardInterrupt, exit 130
    SIGTERM while it runs                 Terminated; exit 0 of what runs until it is stopped, else 143
    standard output closed                exit 1, before anything is done
    standard output full                  exit 1
    whoever read it has gone              exit 0: that is their way of saying "enough"

Imports next to nothing, so that a command is protected before it loads the rest.
"""

from __future__ import annotations

import io
import os
import signal
import sys

TYPE_CHECKING = False  # typing takes longer to load than all else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from _typeshed import ReadableBuffer as Buffer

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 128 + signal.SIGTERM
RETRY_S = 0.005


class Terminated(KeyboardInterrupt):
    """SIGTERM: to a command that is not prepared for it the same as Ctrl-C, but for its exit code."""


class Terminal:
    """A command's life, from its first line to its last; `name` is how its sentences begin."""

    def __init__(self, name: str, *, whole: bool) -> None:
        """`whole`: the process is this command, so that its signals and its output stay what they are made to."""
        self.name = name
        self.until_stopped = False
        """It runs until it is stopped: SIGTERM is success."""
        self._whole = whole
        self._before: dict[int, object] = {}
        self._leave_at_once = True
        self._came = 0  # the last signal; at the end it counts also where its exception got lost

    def __enter__(self) -> Terminal:
        # Only what nobody has set otherwise: a command in the background ignores Ctrl-C, a test has its own.
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            if signal.getsignal(number) is usual:
                try:
                    self._before[number] = signal.signal(number, self._on_signal)
                except ValueError:  # not in the main thread: signals are another's
                    return self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if not self._whole and signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)  # type: ignore[arg-type] # typeshed: what signal() returned, it takes

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._leave_at_once:
            os._exit(self._ended_by(number == signal.SIGINT))
        self._came = number
        if _importing(frame):
            # An exception in the midst of an import becomes another (numpy's is an ImportError) or nothing at all.
            signal.signal(signal.SIGALRM, lambda _, frame: self._on_signal(number, frame))
            signal.setitimer(signal.ITIMER_REAL, RETRY_S)
        else:
            self._stop()

    def _stop(self) -> None:
        """Raise what the signal that came is to a command that runs, if one came."""
        if self._came:
            raise KeyboardInterrupt if self._came == signal.SIGINT else Terminated

    def _ended_by(self, interrupt: bool) -> int:
        """Say why it ends, and give the exit code."""
        if interrupt:
            self.say("interrupted")
            return EXIT_INTERRUPTED
        if self.until_stopped:
            return 0
        self.say("terminated")
        return EXIT_TERMINATED

    def say(self, sentence: object) -> None:
        """A sentence on standard error, if there is somebody to read it."""
        try:
            print(f"{self.name}: {sentence}", file=sys.stderr, flush=True)
        except (OSError, RuntimeError):  # RuntimeError: a signal's handler, in the midst of another sentence
            return

    def loaded(self) -> None:
        """From now on a signal is an exception: what runs has something to put away."""
        self._leave_at_once = False

    # ------------------------------------------------------------------ the whole

    def run(self, body: Callable[[], int]) -> int:
        """Carry out `body`, and turn what ends it into a sentence and an exit code."""
        from flux.errors import FluxError  # late, as all that is not needed to be safe

        try:
            if not _open_descriptors():
                self.say("its standard output is closed (> /dev/null, if nobody is to read it)")
                return EXIT_ERROR
            if self._whole:
                _guard_output()
            try:
                code = body()
            finally:  # also after --help, which leaves by SystemExit
                if self._came:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    signal.signal(signal.SIGALRM, signal.SIG_IGN)
                self._stop()
                self._leave_at_once = True
                sys.stdout.flush()
            return code
        except _OutputError as error:
            _forget_output()
            self.say(error)
            return EXIT_ERROR
        except FluxError as error:
            self.say(error)
            return error.exit_code
        except KeyboardInterrupt as error:
            return self._ended_by(not isinstance(error, Terminated))
        except BrokenPipeError:
            _forget_output()
            return 0


class _OutputError(Exception):
    """Standard output does not take what is written to it."""


class _Output(io.FileIO):
    """Standard output, whose errors say what they are errors of: no other file's are taken for them."""

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _OutputError(f"cannot write to standard output: {error.strerror}") from error


def _guard_output() -> None:
    """Let `_Output` be what writes; the encoding and the buffering stay."""
    was = sys.stdout
    assert isinstance(was, io.TextIOWrapper)
    was.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(was.fileno(), "w", closefd=False)),
        encoding=was.encoding,
        errors=was.errors,
        line_buffering=was.line_buffering,
        write_through=was.write_through,
    )


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being loaded somewhere below this frame."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _open_descriptors() -> bool:
    """Whether standard output is open. What is closed of 0, 1 and 2 is /dev/null from now on, so that no file or
    socket gets such a number and what a library prints."""
    there = sys.stdout is not None
    descriptor = 0
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    return there


def _forget_output() -> None:
    """So that nothing is tried again at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
