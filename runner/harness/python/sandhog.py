"""Sends inference requests to models from inside a cell.

    import sandhog

    answer = sandhog.infer("smollm2", {"prompt": "Once upon a time", "max_tokens": 16})
    vector = sandhog.infer("embed", "a job queue")

A job may call the images that its `infer` names, and no others. The requests use no network.
Several threads may call at the same time. A forked process cannot call: the connection to the
worker belongs to the process that the job started.

This module checks only that a request can be sent. The worker decides which images a job may call,
and how often.
"""

import json
import os
import socket
import struct
import threading

__all__ = ["infer", "InferError", "InferRefused", "InferTimeout", "ModelError"]

VARIABLE = "SANDHOG_INFER_FD"
MAX_REQUEST_BYTES = 1 << 20


class InferError(Exception):
    """A model did not answer. `code` is the reason, such as `unknown_image` or `model_lost`."""

    def __init__(self, message, code="infer_failed"):
        super().__init__(message)
        self.code = code


class InferRefused(InferError, PermissionError):
    """This job may not call that image, or has reached its limit of calls."""


class InferTimeout(InferError, TimeoutError):
    """The answer took too long."""


class ModelError(InferError):
    """The model rejected its input, or failed. `name` and `traceback` are of its exception."""

    def __init__(self, message, code, name, traceback):
        super().__init__(message, code)
        self.name = name
        self.traceback = traceback


KINDS = {
    "not_allowed": InferRefused,
    "too_many_calls": InferRefused,
    "timed_out": InferTimeout,
}


class WorkerConnection:
    """The connection to the worker, shared by the threads of one process."""

    def __init__(self, number):
        self.process = os.getpid()
        self.socket = socket.socket(fileno=number)
        self.socket.setblocking(True)
        self.socket.set_inheritable(False)
        self.sending = threading.Lock()
        self.last = 0
        # One of the waiting threads reads the answers for all of them, without holding the lock.
        self.changed = threading.Condition()
        self.reading = False
        self.buffer = bytearray()
        self.awaited = set()
        self.answers = {}
        self.ended = False

    def request(self, question):
        if os.getpid() != self.process:
            raise InferError(
                "only the process that the job started can call models, not a fork of it",
                "wrong_process",
            )
        with self.sending:
            self.last += 1
            number = self.last
            frame = pack({"id": number, **question})
            self.awaited.add(number)
            try:
                self.socket.sendall(frame)
            except OSError:
                self.awaited.discard(number)
                raise hung_up() from None
        try:
            return self.wait_for(number)
        finally:
            with self.changed:
                self.awaited.discard(number)
                self.answers.pop(number, None)

    def wait_for(self, number):
        while True:
            with self.changed:
                while number not in self.answers and self.reading and not self.ended:
                    self.changed.wait()
                if number in self.answers:
                    return self.answers.pop(number)
                if self.ended:
                    raise hung_up()
                self.reading = True
            try:
                self.read_one()
            finally:
                with self.changed:
                    self.reading = False
                    self.changed.notify_all()

    def read_one(self):
        """Reads one frame. If this is interrupted, the bytes read so far stay in the buffer."""
        head = self.fill(4)
        body = head and self.fill(4 + struct.unpack(">I", head)[0])
        if not body:
            self.ended = True
            return
        answer = json.loads(body[4:])
        del self.buffer[: len(body)]
        if answer.get("id") in self.awaited:
            self.answers[answer["id"]] = answer

    def fill(self, length):
        while len(self.buffer) < length:
            try:
                piece = self.socket.recv(max(length - len(self.buffer), 1 << 16))
            except OSError:
                piece = b""
            if not piece:
                return None
            self.buffer += piece
        return bytes(self.buffer[:length])


def hung_up():
    return InferError(
        "the worker closed the connection: the job has reached its limit of calls, or has sent an "
        "invalid request",
        "hung_up",
    )


def plain(value):
    """Returns an array or a number of another library as plain data."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not plain data")


def pack(question):
    body = json.dumps(question, allow_nan=False, default=plain).encode()
    if len(body) > MAX_REQUEST_BYTES:
        raise ValueError(f"a request of {len(body)} bytes is above the cap of {MAX_REQUEST_BYTES}")
    return struct.pack(">I", len(body)) + body


opening = threading.Lock()
connection = None


def open_connection():
    global connection
    with opening:
        if connection is None:
            try:
                connection = WorkerConnection(int(os.environ.get(VARIABLE, "")))
            except (OSError, ValueError):
                raise InferRefused(
                    "this job may ask no model: its `infer` names none", "not_allowed"
                ) from None
        return connection


def infer(image, input, *, method=None, path=None, timeout=None):
    """Calls the model of `image` with `input`, and returns the answer as plain data.

    `method` or `path` selects the method or path of the model; without them, the image's default
    is used. `timeout` is in seconds and includes all waiting. Raises InferRefused if the job may
    not make this call, ModelError if the model raised an exception, InferTimeout after `timeout`,
    and InferError for everything else.
    """
    question = {"image": image, "input": input}
    if method is not None:
        question["method"] = method
    if path is not None:
        question["path"] = path
    if timeout is not None:
        question["timeout_ms"] = max(0, int(timeout * 1000))
    answer = open_connection().request(question)
    error = answer.get("error")
    if error is None:
        return answer.get("value")
    code, message = error.get("code", "infer_failed"), error.get("message", "")
    raised = error.get("exception")
    if raised is not None:
        raise ModelError(message, code, raised.get("type", ""), raised.get("traceback", ""))
    raise KINDS.get(code, InferError)(message, code)
