"""Every verb of both programs under what a terminal does to it (M2): output closed, output full, a reader that goes,
Ctrl-C and SIGTERM at any moment. One sentence and an exit code each time, never a traceback."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux.feed import synth
from tests.patience import PATIENCE_S
from tests.system.processes import Flux, FluxServer, wait_until

pytestmark = pytest.mark.system

ANY = "tcp://127.0.0.1:*"
NOBODY = "tcp://127.0.0.1:1"
FLUX, LOADGEN = "flux.cli.main", "flux.cli.loadgen"

# Each verb as somebody would type it; {data} and {rpc}, {pub} are a server's. `loadgen` stands for the other program.
VERBS = {
    "demo": "demo --rows 2k",
    "serve": "serve --data {data} --pub " + ANY + " --rpc " + ANY,
    "sub": "sub SIM/X/1m --oldest --count 5 --pub {pub} --rpc {rpc}",
    "get": "get SIM/X/1m --rpc {rpc}",
    "streams": "streams --rpc {rpc}",
    "rebuild": "rebuild {data}",
    "doctor": "doctor",
    "version": "version",
    "loadgen": "--rate 10 --duration 100ms --warmup 0s",
}


def command(verb: str, data: Path, pub: str = NOBODY, rpc: str = NOBODY) -> list[str]:
    made = VERBS[verb].format(data=data, pub=pub, rpc=rpc).split()
    return [sys.executable, "-m", LOADGEN if verb == "loadgen" else FLUX, *made]


def name(verb: str) -> str:
    return "flux-loadgen" if verb == "loadgen" else f"flux {verb}"


def run(arguments: list[str], redirect: str, **env: str) -> subprocess.CompletedProcess[str]:
    """As a shell would, with such a redirection."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
        env={**os.environ, **env},
        check=False,
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FluxServer]:
    folder = tmp_path_factory.mktemp("served")
    synth.write_csv(folder / "X.csv", synth.candles(5_000, seed=1))
    with FluxServer(folder / "data", "--replay", f"SIM/X/1m={folder / 'X.csv'}") as server:
        wait_until(lambda: server.heads().get("SIM/X/1m", 0) == 5_000, "5,000 rows")
        yield server


# ------------------------------------------------------------------ output


@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_output_is_said_before_anything_is_done(verb: str, tmp_path: Path) -> None:
    done = run(command(verb, tmp_path / "data"), ">&-")
    whole = "flux-loadgen" if verb == "loadgen" else "flux"
    assert done.stderr == f"{whole}: its standard output is closed (> /dev/null, if nobody is to read it)\n"
    assert done.returncode == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_output_is_said(verb: str, unbuffered: str, served: FluxServer, tmp_path: Path) -> None:
    if unbuffered and verb not in ("version", "sub", "loadgen"):
        arguments = [*command(verb, tmp_path)[:3], *([] if verb == "loadgen" else [verb]), "--help"]
    else:
        data = tmp_path / "data"
        if verb == "rebuild":
            with FluxServer(data) as stopped:
                stopped.stop()
        arguments = command(verb, data, served.pub, served.rpc)
    done = run(arguments, ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    *before, last = done.stderr.splitlines()
    assert last == f"{name(verb)}: cannot write to standard output: No space left on device"
    assert "Traceback" not in "".join(before)
    assert done.returncode == 1


@pytest.mark.parametrize("verb", ["version", "sub", "loadgen"])
def test_a_closed_error_output_does_not_get_into_the_other(
    verb: str, served: FluxServer, tmp_path: Path
) -> None:
    arguments = command(verb, tmp_path, served.pub, served.rpc)
    usual, without = run(arguments, ""), run(arguments, "2>&-")
    assert without.returncode == usual.returncode == 0
    assert len(without.stdout.splitlines()) == len(usual.stdout.splitlines())


@pytest.mark.parametrize("verb", ["sub", "get"])
def test_a_reader_that_has_enough_is_no_error(verb: str, served: FluxServer, tmp_path: Path) -> None:
    arguments = command(verb, tmp_path, served.pub, served.rpc)
    if verb == "sub":
        arguments[arguments.index("--count") + 1] = "5000"
    shell = '"$@" 2>err; echo $? >code'
    done = subprocess.run(
        ["sh", "-c", f"{{ {shell}; }} | head -1", "sh", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert (tmp_path / "err").read_text() == ""
    assert (tmp_path / "code").read_text() == "0\n"


# ------------------------------------------------------------------ signals

# Sends itself a signal at the n-th import behind the moment at which the command is ready for one.
INTERRUPTED = """
import os, signal, sys
left, number = int(sys.argv[1]), int(sys.argv[2])
def count(event, _):
    global left
    if event == "import" and signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)
sys.addaudithook(count)
module, sys.argv = sys.argv[3], sys.argv[3:]
if module.endswith("main"):
    from flux.cli.main import main
else:
    from flux.cli.loadgen import main
code = main()
sys.exit(code)
"""

LOADED = {"version": 60, "doctor": 150, "loadgen": 100}
"""Imports that a verb does at the least, before or while it runs; the others do more than 100."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_while_it_loads(
    verb: str, number: signal.Signals, rng: random.Random, tmp_path: Path
) -> None:
    for at in (1, rng.randrange(2, LOADED.get(verb, 100))):
        made = command(verb, tmp_path / "data")
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, str(at), str(int(number)), *made[2:]],
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE_S,
            check=False,
        )
        if number == signal.SIGINT:
            code, said = 130, "interrupted\n"
        elif verb in ("serve", "sub") and at > 1:
            code, said = 0, ""
        else:
            code, said = 143, "terminated\n"
        whole = name(verb).partition(" ")[0]
        begins = (name(verb), whole)  # which verb it is, is not known at once
        if done.returncode == 143 and verb in ("serve", "sub"):
            code, said, begins = 143, "terminated\n", (whole,)
        assert done.stderr in {f"{begin}: {said}" if said else "" for begin in begins}, (at, done.stderr)
        assert done.returncode == code, at
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGTERM, 0, ""), (signal.SIGINT, 130, "flux sub: interrupted\n")]
)
def test_sub_ends_when_told(number: signal.Signals, code: int, said: str, served: FluxServer) -> None:
    with Flux("sub", "SIM/X/1m", "--oldest", "--pub", served.pub, "--rpc", served.rpc) as process:
        for _ in range(5_000):
            process.line()
        process.process.send_signal(number)
        assert process.wait() == code
        assert process.errors() == said


def test_a_demo_that_is_ended_takes_its_server_with_it(tmp_path: Path) -> None:
    with Flux("demo", "--rows", "30k", TMPDIR=str(tmp_path)) as process:
        while "server" not in (line := process.line()):
            pass
        server = int(line.split("server ")[1].split(":")[0])
        assert process.stop() == 143
        *before, last = process.errors().splitlines()
        assert last == "flux demo: terminated"
        assert all(line.startswith("flux serve: ") and "SIM/DEMO/1m" in line for line in before), before
    wait_until(lambda: not Path(f"/proc/{server}").exists(), "the end of its server")
    assert list(tmp_path.iterdir()) == []
