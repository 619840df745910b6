"""Stub of ext/window.pyx. The door `flux.window` checks lengths and types; an `object` is a buffer."""

from typing import final

@final
class Window:
    def __new__(
        cls, kind: int, length: int, origin: int, row_ms: int, keep: int, limit: int, by_hand: bool
    ) -> Window:
        """`limit`: rows of the open bucket that stay besides the newest `keep`; `by_hand`: only `cut` lets rows go.

        Every method raises `RuntimeError` while another thread is in one.
        """

    def set_edges(self, edges: object) -> None: ...
    def set_origin(self, origin: int) -> None:
        """An even grid again, with this open (0 to below its length)."""

    def push(self, rows: object, at: int, out: object, spans: object, amending: bool) -> tuple[int, int]: ...
    def partial(self, out: object) -> int: ...
    def cut(self) -> None: ...
    def kept(self, start: int, out: object) -> None: ...
    @property
    def kept_count(self) -> int: ...
    @property
    def open_rows(self) -> int: ...
    @property
    def late(self) -> int: ...
    @property
    def corrected(self) -> int: ...
