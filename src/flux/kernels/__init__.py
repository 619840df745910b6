"""Where the compiled kernels land; only the doors (`flux/codec.py`, `flux/ring.py` ...) import from here.

Each kernel has a hand-written stub beside this file, which stubtest compares with the built module.
"""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise ImportError(
            f"the compiled kernel flux.kernels.{name} is not built; build it with: python -m pip install -e .",
            name=f"{__name__}.{name}",
        ) from error
