"""C-7 on the command line: one sentence on standard error, exit 2, before anything is asked of a server."""

from __future__ import annotations

import pytest

from flux.cli.main import main

KEY = "SIM/BTCUSDT/1m"
NOWHERE = "tcp://127.0.0.1:1"


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (("get", KEY, "--start", "2022-02"), "start '2022-02' is no time"),
        (("get", KEY, "--start", "2022-02-30"), "start '2022-02-30' is no time"),
        (("get", KEY, "--start", ""), "start '' is no time"),
        (("get", KEY, "--end", "123"), "end '123' is no time"),
        (
            ("get", KEY, "--start", "today", "--end", "yesterday"),
            "start 'today' is not before end 'yesterday'",
        ),
        (("get", KEY, "--limit", "-5"), "'-5'"),
        (("sub", KEY, "--since", "someday"), "--since 'someday' is no time"),
        (("sub", KEY, "--since", ""), "--since '' is no time"),
    ],
)
def test_what_is_no_time_is_a_fault_of_the_command(
    verb: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, "--rpc", NOWHERE]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, err.count("\n"), "Traceback" in err) == ("", 1, False)
