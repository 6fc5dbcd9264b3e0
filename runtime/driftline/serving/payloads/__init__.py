"""Payload logging: a separate process sends requests and responses to a URL or a folder."""
