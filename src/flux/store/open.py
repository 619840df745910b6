"""A store by its URL: nothing outside this room names what is behind it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from flux.errors import ConfigError
from flux.store.base import Store


def open_store(url: str, store_id: int, *, also: int = 0, patient: bool = False) -> Store:
    """The store at `duckdb:PATH`; `store_id`, `also` and `patient` as `DuckStore` has them.

    Raises ConfigError for a URL of another kind, and what opening raises.
    """
    parts = urlsplit(url)
    if parts.scheme == "duckdb":
        from flux.store.duck import DuckStore  # late: a server imports no database

        return DuckStore(Path(unquote(parts.path)), store_id, also=also, patient=patient)
    raise ConfigError(f"{url}: a store's URL begins with duckdb:")
