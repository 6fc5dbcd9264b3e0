"""What holds for all tests.

Hypothesis draws the same examples in every run, so that a change is judged by what it changed;
`pytest --hypothesis-profile=explore` draws new ones.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")
