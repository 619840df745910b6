"""Mutants: would a test notice? A line of a copy of the project is changed and the nearest tests are run.

A mutant that no test kills is a promise that is only true today. `tools/mutate` draws mutants from the rooms that hold
promises (`nearest.ROOMS`), and has a fixed list beside them (`planted`), in Python and in C.

The mutator is our own, some hundred lines over `ast`. mutmut 3 was tried: the import hook of an editable install goes
before its copy, so that it found none of our code run by any test; it also decides by an environment variable within
one process, where our tests start threads and processes, and it knows nothing of C. cosmic-ray has one command for all
of its mutants, where each of ours is run against the tests nearest to it.
"""
