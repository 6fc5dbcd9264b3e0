"""Payloads, logged: what was asked and answered goes to a URL or a folder, out of a process of its own."""
