"""Load tests: the latency of a server's responses, and the settings with the highest throughput."""
