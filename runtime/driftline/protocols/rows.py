"""Requests of one row each, an object of values by name, that run as one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from driftline.protocols.codec import InferRequest

END = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*\Z")
"""What may follow the list of a request's rows if it has nothing else."""


class RowReader(Protocol):
    """A codec that reads such requests together."""

    def read_rows(self, rows: Sequence[bytes]) -> InferRequest:
        """Read rows such as `{"a": 1, "b": 2}`, each cut out of its request, as one request.

        Raises Unread if one of them is not a single object of all that the model takes.
        """
        ...


@dataclass(frozen=True, slots=True)
class RowForm:
    """Requests of one row each, whatever its values are.

    prefix, suffix  the text around the row: of `{"instances": [{"a": 1}]}`, `{"instances": [` and `]}`
    """

    rows: ClassVar[int] = 1

    codec: RowReader
    prefix: bytes
    suffix: bytes

    @classmethod
    def of(cls, codec: RowReader, body: bytes, start: int) -> RowForm | None:
        """Return the form of a request whose row begins at `start`; None if it has anything else."""
        form = cls(codec, body[:start], body[body.find(b"]") :])
        return form if form.fits(body) and END.match(form.suffix, 1) is not None else None

    def fits(self, body: bytes) -> bool:
        """See Form: whether one object is between, judging by brackets and opening braces.

        It may be `{"a": 1}`, but not `{"a": [1]}` or `{"a": 1}, {"a": 2}`.
        """
        start, stop = len(self.prefix), len(body) - len(self.suffix)
        return (
            body.startswith(self.prefix) and body.endswith(self.suffix)
            and body.startswith(b"{", start) and body.find(b"{", start + 1) < 0
            and body.find(b"[", start) < 0 and body.find(b"]", start) == stop
        )  # fmt: skip

    def read_all(self, bodies: Sequence[bytes]) -> InferRequest:
        """See Form."""
        start, suffix_length = len(self.prefix), len(self.suffix)
        return self.codec.read_rows([body[start : len(body) - suffix_length] for body in bodies])
