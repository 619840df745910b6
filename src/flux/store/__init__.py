"""Rows at rest: the protocol a store keeps, and DuckDB behind it."""

from flux.store.base import Store, StoreBatch
from flux.store.duck import DuckStore

__all__ = ["DuckStore", "Store", "StoreBatch"]
