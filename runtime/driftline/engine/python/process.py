"""A process that runs a model's Python code: its start, its requests, its death, its end."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any

from driftline.engine.python import worker
from driftline.engine.python.worker import Memory
from driftline.errors import BadRequest, ModelError
from driftline.tensors import Tensors

log = logging.getLogger("driftline.python")

START_SECONDS = 600.0
"""How long a process may take to load its model."""

_MAX_LINE = 2_000


class Died(ModelError):
    """The process has ended, or failed to start."""


class PythonProcess:
    """An interpreter with an MLflow model in it. It ends when our process does, however that ends.

    python        the interpreter
    folder        of the model
    memory_bytes  private memory that it may use

    Raises Died if there is no such interpreter.
    """

    def __init__(self, python: str, folder: Path, memory_bytes: int) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._ready = False
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        requests, answers = os.memfd_create("driftline-requests"), os.memfd_create("driftline-answers")
        descriptors = (theirs.fileno(), lifeline, requests, answers)
        command = [python, worker.__file__, str(folder), *map(str, descriptors), str(memory_bytes)]
        self._descriptors = [self._lifeline, requests, answers]
        self._control = ours
        self._requests, self._answers = Memory(requests), Memory(answers)
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=descriptors,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # leave the version's folder unchanged
                start_new_session=True,  # Ctrl-C is for the server, which finishes requests in flight
            )
        except OSError as error:
            self._close()
            raise Died(f"{folder}: the interpreter {python} can't be started: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(lifeline)
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._descriptors.append(self._pidfd)
        Thread(
            target=_log_output, args=(self._popen.stderr, folder), name="driftline-python", daemon=True
        ).start()

    def wait_ready(self) -> None:
        """Wait until the model is loaded; Died if it can't be."""
        if self._ready:
            return
        answer = self._receive(START_SECONDS)
        if "error" in answer:
            raise Died(f"{self._folder}: can't be loaded: {self._with_limit(answer['error'])}")
        self._ready = True

    def ask(self, inputs: Tensors) -> tuple[str, Tensors]:
        """Return the predictions: 'table', 'mapping' or 'array', and arrays by name; an array's name is ''.

        Raises BadRequest if the model refuses the inputs, ModelError if it fails, Died if the process dies.
        """
        self.wait_ready()
        size = self._requests.write(inputs)
        with suppress(OSError):  # the response shows that it has ended
            self._control.sendall(b"%d\n" % size)
        answer = self._receive()
        if "error" in answer:
            if answer["refused"]:
                raise BadRequest(f"the model refused the inputs: {answer['error']}")
            raise ModelError(f"the model failed: {self._with_limit(str(answer['error']))}")
        arrays = self._answers.read(answer["size"])
        return answer["form"], {name: array.copy() for name, array in arrays.items()}

    def is_dead(self) -> bool:
        """Return whether the process has ended."""
        return self._popen.poll() is not None

    def kill(self) -> None:
        """Kill it, with its children, and close everything."""
        if self._popen.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()
        self._close()

    def _close(self) -> None:
        self._control.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def _receive(self, seconds: float | None = None) -> dict[str, Any]:
        """Return its next message; Died if it ends, or sends nothing for this long."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._pidfd, select.POLLIN)
        deadline = None if seconds is None else time.monotonic() + seconds
        line = b""
        while not line.endswith(b"\n"):
            remaining_ms = None if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))
            events = dict(poller.poll(remaining_ms))
            if not events:
                raise Died(f"{self._folder}: the model's process is not ready after {seconds:g} s")
            chunk = b""
            if self._control.fileno() in events:
                with suppress(ConnectionError):
                    chunk = self._control.recv(65_536)
            if not chunk:
                raise Died(f"{self._folder}: the model's process {self._describe_end()}")
            line += chunk
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _describe_end(self) -> str:
        """Return how it ended, in words."""
        try:
            code = self._popen.wait(1)
        except subprocess.TimeoutExpired:
            return "has closed its connection"
        if code >= 0:
            return f"has ended with exit code {code}"
        return f"was killed by {signal.Signals(-code).name}"

    def _with_limit(self, error: object) -> str:
        """Return an error's text, with the memory limit if it is about memory."""
        if "memory" not in str(error).lower():
            return str(error)
        return f"{error}; it may have {self._memory_bytes >> 20} MiB ([engine] memory_bytes)"


def _log_output(stderr: IO[bytes], folder: Path) -> None:
    """Log what a process writes, until it and all its children have ended."""
    with stderr:
        while line := stderr.readline(_MAX_LINE):
            log.info("%s: %s", folder, line.decode(errors="replace").rstrip(), extra={"folder": str(folder)})
