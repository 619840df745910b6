"""The two machines without I/O: the sequencer numbers what a server takes in, the coordinator orders what a
client gets.

Neither knows a socket, a clock or a file: bytes' meaning, rows and times come in, effects go out.
"""
