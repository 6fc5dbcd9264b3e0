"""Other model servers on the same work: `python -m bench.servers`."""
