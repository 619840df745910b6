"""flux-loadgen: an open-loop load generator that counts latency from the intended send time.

`plan` says what to send when, `publisher` and `subscriber` are the two processes, `run` starts and watches
them, `report` is what comes out.
"""
