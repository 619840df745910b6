"""The server's loops and threads: the only ones that know in which order the stations stand."""
