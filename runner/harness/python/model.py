"""Serves one Python model to a Sandhog worker, over descriptor 3.

    model.py FOLDER MODULE:CLASS CONCURRENCY

The server creates the class without arguments and calls its method `load` once. After that, each
call goes to the method that the call names. A method that takes a list gets all inputs of a batch
at once and returns the same number of results. An exception in place of a result fails only the job
of that input. If the method raises, the server calls it again with each input alone, so that a bad
input fails alone. Every exception becomes an answer, also `SystemExit` and the panic of a native
library. A method that yields answers a stream: the server passes its pieces on as they come. If the
next call is already waiting, the answers of a batch are written while the model works on that call.

Callers can reach the methods that the image's contract lists (`SANDHOG_METHODS`) and the methods
that the model's own code defines. They cannot reach methods inherited from a library's class, such
as those of PyTorch's modules, or attributes that happen to be callable.

An answer must be plain data of at most one mebibyte. An object with a method `tolist`, such as a
NumPy array, is converted. Output of the model goes to the server's log.
"""

import importlib
import inspect
import json
import os
import queue
import socket
import struct
import sys
import threading
import traceback

MAX_ANSWER = 1 << 20
MAX_TEXT = 8 << 10
# Characters of one piece of a stream. In any JSON encoding they fit into a frame.
MAX_PIECE = 64 << 10
# Bytes of answers that are collected before a write. Each write wakes the runner, the container's
# shim, the engine and the worker.
ANSWER_BATCH_BYTES = 32 << 10
IMMUTABLE_TYPES = (str, int, float, type(None), BaseException)
# Seconds that the model's thread waits for the interpreter while another thread writes answers.
SWITCH_INTERVAL_SECONDS = 0.001


class Wire:
    """Frames to and from the worker."""

    def __init__(self, number):
        self.socket = socket.socket(fileno=number)
        self.socket.setblocking(True)
        # A process that the model starts must not write to the worker.
        self.socket.set_inheritable(False)
        self.reader = self.socket.makefile("rb")
        self.lock = threading.Lock()

    def send_frame(self, kind, **fields):
        self.send(encode_frame(kind, **fields))

    def send(self, data):
        with self.lock:
            self.socket.sendall(data)

    def receive_frame(self):
        head = self.reader.read(4)
        if len(head) < 4:
            return None
        return json.loads(self.reader.read(struct.unpack(">I", head)[0]))


def encode_frame(kind, **fields):
    """Encodes a frame. Characters that UTF-8 cannot encode are replaced.

    The worker could not decode the frame with them.
    """
    text = json.dumps({kind: fields} if fields else kind, allow_nan=False, ensure_ascii=False)
    return with_length(text.encode(errors="replace"))


def json_line(piece):
    """Returns a piece that is not text as one line of JSON."""
    return json.dumps(piece, default=plain, allow_nan=False, ensure_ascii=False) + "\n"


def with_length(body):
    return struct.pack(">I", len(body)) + body


def plain(value):
    """Returns an array or a number of another library as plain data."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not plain data")


def immutable_copies(results):
    """Returns results that the model cannot change any more, with arrays copied.

    None if one of them is neither an array nor of an immutable type.
    """
    kept = []
    for index, result in results:
        try:
            if hasattr(result, "tolist"):
                result = result.tolist()
            elif not isinstance(result, IMMUTABLE_TYPES):
                return None
        except BaseException as error:
            result = error
        kept.append((index, result))
    return kept


def describe_exception(error):
    """Returns an exception in the form that is sent to the worker."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    try:
        message = str(error)
    except BaseException:
        message = "(the message cannot be read: str() raised)"
    return {
        "name": type(error).__name__[:200],
        "message": message[:MAX_TEXT],
        "traceback": "".join(lines)[-MAX_TEXT:],
    }


class Answers:
    """The answers to one call, sent several frames at a time. The last frame ends the call."""

    def __init__(self, wire, call):
        self.wire = wire
        self.id = call["id"]
        self.frames = bytearray()

    def give(self, index, value):
        try:
            fields = {"id": self.id, "index": index, "value": value}
            body = json.dumps(
                {"result": fields}, default=plain, allow_nan=False, ensure_ascii=False
            ).encode()
            if len(body) > MAX_ANSWER:
                raise ValueError(f"the answer is above the cap of {MAX_ANSWER} bytes")
        except BaseException as error:
            self.fail(index, error)
        else:
            self.add(with_length(body))

    def fail(self, index, error):
        exception = describe_exception(error)
        self.add(encode_frame("error", id=self.id, index=index, exception=exception))

    def add(self, frame):
        self.frames += frame
        if len(self.frames) >= ANSWER_BATCH_BYTES:
            self.wire.send(self.frames)
            self.frames.clear()

    def finish(self, results):
        for index, result in results:
            if isinstance(result, BaseException):
                self.fail(index, result)
            else:
                self.give(index, result)
        self.add(encode_frame("done", id=self.id))
        self.wire.send(self.frames)


def call_with_batch(method, inputs):
    """Calls a method with a list. Returns its results, or the exception that it raises."""
    try:
        results = list(method(inputs))
        if len(results) != len(inputs):
            raise ValueError(f"{len(results)} results for {len(inputs)} inputs")
    except BaseException as error:
        return error
    return results


def is_own(cls, folder):
    """Returns whether a class is defined by a file below the model's folder."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return file is not None and os.path.realpath(file).startswith(os.path.join(folder, ""))


def method_of(model, name, folder, listed):
    """Returns the method of this name. Raises AttributeError if callers may not call it."""
    if name not in listed:
        defining = next((cls for cls in type(model).__mro__ if name in vars(cls)), None)
        if defining is None or isinstance(vars(defining)[name], property):
            if name not in dir(model):
                raise AttributeError(f"{type(model).__name__!r} has no method {name!r}")
            raise AttributeError(f"{name!r} is no method")
        if not is_own(defining, folder):
            raise AttributeError(
                f"{name!r} is no method of the model's own: {defining.__module__} defines it"
            )
    found = getattr(model, name)
    if not callable(found):
        raise AttributeError(f"{name!r} is no method")
    return found


class Server:
    """A loaded model and the calls that it has received."""

    def __init__(self, wire, model, folder):
        self.wire = wire
        self.model = model
        self.folder = os.path.realpath(folder)
        self.listed = frozenset(os.environ.get("SANDHOG_METHODS", "").split(","))
        self.calls = queue.SimpleQueue()
        # The calls that have not ended, by number.
        self.open = {}
        self.finished = queue.SimpleQueue()

    def listen(self):
        """Takes calls from the worker until it closes the connection."""
        while (frame := self.wire.receive_frame()) is not None:
            if "call" in frame:
                call = frame["call"]
                call["cancelled"] = False
                self.open[call["id"]] = call
                self.calls.put(call)
            elif "cancel" in frame and (call := self.open.get(frame["cancel"]["id"])):
                call["cancelled"] = True
        self.calls.put(None)

    def work(self):
        """Works on calls until there are no more."""
        while (call := self.calls.get()) is not None:
            answers = Answers(self.wire, call)
            results = self.results(call)
            del self.open[call["id"]]
            later = None
            if len(results) > 1 and not self.calls.empty():
                later = immutable_copies(results)
            if later is None:
                answers.finish(results)
            else:
                self.finished.put((answers, later))
        self.calls.put(None)

    def write(self):
        """Sends the answers of finished calls while the model works on the next ones."""
        while True:
            answers, results = self.finished.get()
            answers.finish(results)

    def results(self, call):
        """Returns pairs of an input's index and its answer, or an exception in place of that."""
        if call["cancelled"]:
            return []
        indices = range(len(call["inputs"]))
        try:
            method = method_of(self.model, call["target"], self.folder, self.listed)
        except BaseException as error:
            return [(index, error) for index in indices]
        if call["batched"]:
            return self.batch(call, method, indices)
        return [(0, self.single(call, method))]

    def batch(self, call, method, indices):
        """Calls the method with all inputs at once, and with each one alone if that raises."""
        results = call_with_batch(method, [call["inputs"][index] for index in indices])
        if not isinstance(results, BaseException):
            return list(zip(indices, results))
        if len(indices) == 1:
            return [(indices[0], results)]
        # This is outside the `except` block of `call_with_batch`. Inside, the exception about all
        # inputs would appear in the traceback of each one.
        return [alone for index in indices for alone in self.batch(call, method, [index])]

    def single(self, call, method):
        try:
            result = method(call["inputs"][0])
            if inspect.isgenerator(result):
                result = self.stream(call, result)
        except BaseException as error:
            return error
        return result

    def stream(self, call, pieces):
        """Passes on the pieces. Returns the joined text if all are text, and a list otherwise."""
        whole, size = [], 0
        for piece in pieces:
            if call["cancelled"]:
                pieces.close()
                break
            text = piece if isinstance(piece, str) else json_line(piece)
            size += len(text)
            if size > MAX_ANSWER:
                raise ValueError(f"the answer is above the cap of {MAX_ANSWER} bytes")
            whole.append(piece)
            if call["stream"]:
                for start in range(0, len(text), MAX_PIECE):
                    part = text[start : start + MAX_PIECE]
                    self.wire.send_frame("chunk", id=call["id"], text=part)
        return "".join(whole) if whole and all(isinstance(piece, str) for piece in whole) else whole


def main():
    folder, name, concurrency = sys.argv[1:]
    wire = Wire(3)
    # Writes each line at once: a log in the server's buffer would be lost if the server dies.
    sys.stdout.reconfigure(line_buffering=True)
    try:
        sys.path.insert(0, folder)
        module, _, cls = name.partition(":")
        model = getattr(importlib.import_module(module), cls)()
        if hasattr(model, "load"):
            model.load()
    except BaseException as error:
        traceback.print_exc()
        wire.send_frame("failed", exception=describe_exception(error))
        return 1
    server = Server(wire, model, folder)
    wire.send_frame("ready")
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    threading.Thread(target=server.listen, daemon=True).start()
    threading.Thread(target=server.write, daemon=True).start()
    for _ in range(int(concurrency) - 1):
        threading.Thread(target=server.work, daemon=True).start()
    # The main thread works too, because some libraries work only there.
    server.work()
    return 0


if __name__ == "__main__":
    sys.exit(main())
