"""Requests of a row each, an object of values by name, that run as one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from driftline.protocols.codec import InferRequest

BEHIND = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*\Z")
"""What may follow the list of a request's rows, if they are all there is in it."""


class RowReader(Protocol):
    """A codec that reads such requests together."""

    def read_rows(self, rows: Sequence[bytes]) -> InferRequest:
        """Rows as they stand in their requests, such as `{"a": 1, "b": 2}`, as one request.

        Unread if one of them is not one object of all that the model takes.
        """
        ...


@dataclass(frozen=True, slots=True)
class RowForm:
    """Requests of a row each, whatever its values are.

    before, behind  the text around the row: of `{"instances": [{"a": 1}]}`, `{"instances": [` and `]}`
    """

    rows: ClassVar[int] = 1

    codec: RowReader
    before: bytes
    behind: bytes

    @classmethod
    def of(cls, codec: RowReader, body: bytes, start: int) -> RowForm | None:
        """The form of a request whose row begins at `start`; None if there is more to it."""
        form = cls(codec, body[:start], body[body.find(b"]") :])
        return form if form.fits(body) and BEHIND.match(form.behind, 1) is not None else None

    def fits(self, body: bytes) -> bool:
        """See Form: whether one object is between, as far as brackets and opening braces tell.

        It may be `{"a": 1}`, but not `{"a": [1]}` or `{"a": 1}, {"a": 2}`.
        """
        start, stop = len(self.before), len(body) - len(self.behind)
        return (
            body.startswith(self.before) and body.endswith(self.behind)
            and body.startswith(b"{", start) and body.find(b"{", start + 1) < 0
            and body.find(b"[", start) < 0 and body.find(b"]", start) == stop
        )  # fmt: skip

    def read_all(self, bodies: Sequence[bytes]) -> InferRequest:
        """See Form."""
        start, behind = len(self.before), len(self.behind)
        return self.codec.read_rows([body[start : len(body) - behind] for body in bodies])
