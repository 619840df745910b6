"""The processes that a run starts: each is `python -m flux.loadgen.workers.NAME` and talks as `process` says."""
