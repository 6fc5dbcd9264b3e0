"""Joins requests that arrive in one turn of the loop and differ only in their numbers into one.

Reading, queueing, splitting and writing a small request takes longer than running the model; here it is done
once for all of them. If anything is unusual or fails, each request continues on its own and gets the same
response as without this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Protocol, cast

from driftline.batching.request import Request
from driftline.errors import DriftlineError
from driftline.protocols.codec import Form, InferRequest, JoiningCodec
from driftline.protocols.numbers import Unread
from driftline.registry.source import Version
from driftline.serving.host import Host
from driftline.serving.http.busy_poll import BusyPoll
from driftline.serving.http.infer import Target, header_lines, response_fields
from driftline.serving.served import Served

log = logging.getLogger("driftline.serving")

JOINABLE_PROTOCOLS = frozenset(("v1", "v2", "mlflow"))
"""The protocols whose codecs read and answer several requests together."""

MAX_JOINED_BYTES = 2**16
"""Bytes of a body; longer ones take so long to read that joining them is no gain."""

MAX_BATCHES = 16
"""Most batches of rows to join into one request: no client gets a response before the last batch has run."""


class Member(Protocol):
    """A client's request whose body is complete.

    arrived_ns  by perf_counter_ns
    """

    body: bytes
    arrived_ns: int

    def start(self, alone: bool = False) -> None:
        """Continue on its own; `alone` if no other request is waiting."""
        ...

    def send(self, fields: bytes, content: bytes) -> None:
        """Send the response, given as header lines and a body, unless that takes long."""
        ...

    def after_send(self, fields: bytes, content: bytes, version: Version) -> None:
        """Do the rest after `send` was called for all: same response, and the version that computed it."""
        ...


class RequestJoiner:
    """The requests that arrived in this turn of the loop, by their target.

    busy_poll  is notified of requests that came alone
    """

    def __init__(self, host: Host, busy_poll: BusyPoll) -> None:
        self._host = host
        self._busy_poll = busy_poll
        self._waiting: dict[Target, list[Member]] = {}

    def add(self, target: Target, member: Member) -> None:
        """Add a request, to be started in the next turn of the loop."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.start)
        waiting = self._waiting.get(target)
        if waiting is None:
            self._waiting[target] = [member]
        else:
            waiting.append(member)

    def start(self) -> None:
        """Start the requests that wait."""
        waiting, self._waiting = self._waiting, {}
        alone = sum(map(len, waiting.values())) == 1
        for target, members in waiting.items():
            try:
                # From here to the queue in one turn of the loop: a swap comes before or after, never between.
                served = self._host.find(target.name, target.version)
            except DriftlineError:
                served = None  # each request raises it again
            separate: Sequence[Member] = members
            if served is not None and len(members) > 1 and target.protocol in JOINABLE_PROTOCOLS:
                separate = start_joined(served, target, members)
            for member in separate:
                member.start(alone)
            if served is not None:
                served.batcher.flush_now()
        if alone:  # with several, some arrive while others are handled
            self._busy_poll.record_handled(members[0].arrived_ns)


def start_joined(served: Served, target: Target, members: Sequence[Member]) -> Sequence[Member]:
    """Start the requests that share the first one's form, a few batches at a time; return the others."""
    codec = cast(JoiningCodec, served.codec(target.protocol))
    joinable: list[Member] = []
    separate: list[Member] = []
    try:
        form = joinable_form(served, codec, target, members[0].body)
        if form is None:
            return members
        for member in members:
            fits = len(member.body) <= MAX_JOINED_BYTES and form.fits(member.body)
            (joinable if fits else separate).append(member)
    except Exception:  # each request is then read on its own
        log.exception("the form of requests can't be found")
        return members
    batch = served.model.settings.batching.max_batch_rows
    max_members = max(1, min(batch, MAX_BATCHES * batch // max(1, form.rows)))
    for start in range(0, len(joinable), max_members):
        group = joinable[start : start + max_members]
        if len(group) == 1 or not start_as_one(served, codec, form, group):
            separate += group
    return separate


def joinable_form(served: Served, codec: JoiningCodec, target: Target, body: bytes) -> Form | None:
    """Return the form of a request; None if it can't be joined with others."""
    if not served.signature.batched or len(body) > MAX_JOINED_BYTES:
        return None
    return codec.form(body, target.json_length)


def start_as_one(served: Served, codec: JoiningCodec, form: Form, members: Sequence[Member]) -> bool:
    """Start them as one request; return False if they can't be joined."""
    try:
        decoded = form.read_all([member.body for member in members])
        request = served.batcher.submit(decoded.inputs, decoded.outputs, client_requests=len(members))
    except (Unread, DriftlineError):
        return False
    except Exception:  # nothing is started yet: each continues alone
        log.exception("requests can't be read together")
        return False
    request.on_done = JoinedRequest(served, codec, decoded, request, members).finish
    return True


@dataclass(slots=True)
class JoinedRequest:
    """Requests that run as one."""

    served: Served
    codec: JoiningCodec
    decoded: InferRequest
    request: Request
    members: Sequence[Member]

    def finish(self) -> None:
        """Send the responses after the batch has run; if it failed, start each request again alone."""
        try:
            responses = self._responses()
        except Exception:
            for member in self.members:
                member.start()
            return
        now, latency, version = perf_counter_ns(), self.served.latency, self.served.version
        # Send all responses first and do the rest afterwards: waking the client's thread in between costs
        # more than all the rest.
        for member, fields, content in responses:
            try:
                member.send(fields, content)
            except Exception:  # the others' responses are still sent
                log.exception("an answer can't be sent")
        for member, fields, content in responses:
            latency.observe(now - member.arrived_ns)
            try:
                member.after_send(fields, content, version)
            except Exception:
                log.exception("after sending a response")

    def _responses(self) -> list[tuple[Member, bytes, bytes]]:
        """Return, for each member, the header lines and the body of its response."""
        contents = self.codec.encode_all(self.decoded, self.request.outcome(), len(self.members))
        cache: dict[tuple[int, int | None], bytes] = {}
        responses: list[tuple[Member, bytes, bytes]] = []
        for member, (content, json_length) in zip(self.members, contents, strict=True):
            key = (len(content), json_length)  # all that their headers depend on
            fields = cache.get(key)
            if fields is None:
                fields = cache[key] = header_lines(response_fields(content, json_length))
            responses.append((member, fields, content))
        return responses
