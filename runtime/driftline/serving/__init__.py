"""The server: versions in memory, the routes to them, the process around both."""
