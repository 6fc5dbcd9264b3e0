"""Payloads, logged: what was asked and answered goes to a URL or a folder, behind the requests' backs."""
