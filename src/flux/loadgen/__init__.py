"""flux-loadgen: an open-loop load generator that counts latency from the intended send time.

`plan` says what to send when and `schedule` in which shape, `run` carries it out by the plan's mode (`pubsub`
in the processes `publisher` and `subscriber`), `report` is what comes out.
"""
