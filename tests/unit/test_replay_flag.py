"""`flux serve --replay [KEY=]FILE` (M1): where it is split, and where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux.cli.serve import split_replay
from flux.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("symbol=BTC").mkdir()
    for name in ("CL=F.csv", "symbol=BTC/part.csv", "plain.csv", "SIM=x.csv"):
        Path(name).touch()


@pytest.mark.parametrize(
    ("text", "key", "file"),
    [
        ("plain.csv", None, "plain.csv"),
        ("not-there.csv", None, "not-there.csv"),
        ("CL=F.csv", None, "CL=F.csv"),
        ("./CL=F.csv", None, "CL=F.csv"),
        ("symbol=BTC/part.csv", None, "symbol=BTC/part.csv"),
        ("SIM/CL/1d=plain.csv", "SIM/CL/1d", "plain.csv"),
        ("SIM/CL=F/1d=plain.csv", "SIM/CL=F/1d", "plain.csv"),
        ("SIM/CL=F/1d=CL=F.csv", "SIM/CL=F/1d", "CL=F.csv"),
        ("SIM/CL/1d=symbol=BTC/part.csv", "SIM/CL/1d", "symbol=BTC/part.csv"),
        ("SIM/a=b/c=d/1m=SIM=x.csv", "SIM/a=b/c=d/1m", "SIM=x.csv"),
        ("SIM/CL/1d=not-there.csv", "SIM/CL/1d", "not-there.csv"),
    ],
)
def test_it_is_split_after_a_key_alone(text: str, key: str | None, file: str) -> None:
    assert split_replay(text) == (key, Path(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SIM/*/1m=plain.csv", "a file is one stream, and * is no symbol"),
        ("SIM/BTC*/1m=plain.csv", "a file is one stream, and * is no symbol"),
        ("SIM/CL/7m=plain.csv", "no such file, and what stands before = is no key"),
        ("=plain.csv", "no such file, and what stands before = is no key"),
        ("SIM/CL/1d=", "a key and no file"),
        ("CL=F.cvs", "no such file"),
    ],
)
def test_what_is_neither_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split_replay(text)
    assert said in str(caught.value)
    assert ascii(text) in str(caught.value)
