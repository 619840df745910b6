"""Programs to read and to start from: `python -m flux.examples.NAME`. Each is run by a test."""
