"""The monitor for other servers: compares their requests and responses with a profile."""
