"""The server: versions in memory, routes to them, the process around it all."""
