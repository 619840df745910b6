"""Decisions without I/O: which streams a server makes (`sequencer.py`), and all that a client does (`coordinator.py`).

Neither knows a socket, a clock or a file: rows and times come in, effects go out. Rows are numbered by the kernel
(`ext/bridge.h`, `flux_number`).
"""
