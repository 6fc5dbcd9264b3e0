"""A registry's last responses, kept on disk for when it is down."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from threading import Lock
from typing import Any

from driftline.registry.cache import write

log = logging.getLogger("driftline.registry")

MAX_ANSWERS = 2_000


class Memory:
    """Responses by request, in a file; the least recent ones are dropped. Thread safe.

    A file that can't be read is an empty memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        try:
            document = json.loads(path.read_bytes())
            answers, self.since = dict(document["answers"]), float(document["since"])
        except (OSError, ValueError, KeyError, TypeError):
            answers, self.since = {}, 0.0
        self._answers: dict[str, Any] = answers
        """Ordered by the last `put`."""

    def recall(self, question: str) -> Any:
        """Return the last response to a request; None if there was none."""
        return self._answers.get(question)

    def put(self, question: str, answer: Any) -> None:
        """Store a response."""
        with self._lock:
            is_new = self._answers.pop(question, None) != answer
            self._answers[question] = answer
            while len(self._answers) > MAX_ANSWERS:
                del self._answers[next(iter(self._answers))]
            if is_new:
                self._save()

    def forget(self, question: str) -> None:
        """Remove the response to a request."""
        with self._lock:
            if self._answers.pop(question, None) is not None:
                self._save()

    def _save(self) -> None:
        self.since = time.time()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write(self._path, json.dumps({"since": self.since, "answers": self._answers}))
        except OSError as error:
            log.warning("%s can't be written, so nothing is remembered over a restart: %s", self._path, error)
