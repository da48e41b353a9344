"""Serves one Python model to a Sandhog worker, over descriptor 3.

    model.py FOLDER MODULE:CLASS CONCURRENCY

The class is made without arguments and its `load` called once; then each call goes to the method it names. A method
that takes a list gets all inputs of a batch at once and returns as many results; an exception in place of a result
fails that one job. When it raises instead, the inputs are tried one by one, so that a bad one fails alone; whatever is
raised is an answer, `SystemExit` and a native library's panic too. A method that yields answers a stream: its pieces
are passed on as they come. Answers of a batch are written while the model works on the next one, if that is here
already.

Callers reach the methods that the image's contract lists (`SANDHOG_METHODS`) and those that the model's own code defines:
neither what a library's class brings along, as PyTorch's modules do, nor an object that happens to be callable.

It refuses to answer with anything but plain data (what has `tolist`, as numpy's arrays, is turned into it), and with
more than a mebibyte. What the model prints goes to the server's log.
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
# Characters of one piece of a stream: however they are written, they fit into a frame.
MAX_PIECE = 64 << 10
# So many bytes of answers go out together: each departure wakes everybody on the way.
ENOUGH = 32 << 10
LASTING = (str, int, float, type(None), BaseException)
# How long, in seconds, a model that wants the interpreter waits for whoever writes answers.
TURN = 0.001


class Wire:
    """Frames to and from the worker."""

    def __init__(self, number):
        self.socket = socket.socket(fileno=number)
        self.socket.setblocking(True)
        # What the model starts must not answer for it.
        self.socket.set_inheritable(False)
        self.reader = self.socket.makefile("rb")
        self.lock = threading.Lock()

    def say(self, kind, **fields):
        self.send(framed(kind, **fields))

    def send(self, data):
        with self.lock:
            self.socket.sendall(data)

    def hear(self):
        head = self.reader.read(4)
        if len(head) < 4:
            return None
        return json.loads(self.reader.read(struct.unpack(">I", head)[0]))


def framed(kind, **fields):
    """A frame as bytes. Of its text, what no encoding knows is replaced: a worker would not read the frame."""
    text = json.dumps({kind: fields} if fields else kind, allow_nan=False, ensure_ascii=False)
    return sized(text.encode(errors="replace"))


def lined(piece):
    """A piece that is no text, as a line of one."""
    return json.dumps(piece, default=plain, allow_nan=False, ensure_ascii=False) + "\n"


def sized(body):
    return struct.pack(">I", len(body)) + body


def plain(value):
    """What an array or a number of another library is, as plain data."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not plain data")


def lasting(results):
    """Results that the model cannot change any more, with arrays copied; none if one of them is of another kind."""
    kept = []
    for index, result in results:
        try:
            if hasattr(result, "tolist"):
                result = result.tolist()
            elif not isinstance(result, LASTING):
                return None
        except BaseException as error:
            result = error
        kept.append((index, result))
    return kept


def described(error):
    """An exception as the worker is told of it."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    try:
        message = str(error)
    except BaseException:
        message = "(it has no readable message)"
    return {
        "name": type(error).__name__[:200],
        "message": message[:MAX_TEXT],
        "traceback": "".join(lines)[-MAX_TEXT:],
    }


class Answers:
    """What is answered of one call, sent some frames at a time; the call is over with the last."""

    def __init__(self, wire, call):
        self.wire = wire
        self.id = call["id"]
        self.frames = bytearray()

    def give(self, index, value):
        try:
            fields = {"id": self.id, "index": index, "value": value}
            body = json.dumps({"result": fields}, default=plain, allow_nan=False, ensure_ascii=False).encode()
            if len(body) > MAX_ANSWER:
                raise ValueError(f"the answer is above the cap of {MAX_ANSWER} bytes")
        except BaseException as error:
            self.fail(index, error)
        else:
            self.add(sized(body))

    def fail(self, index, error):
        self.add(framed("error", id=self.id, index=index, exception=described(error)))

    def add(self, frame):
        self.frames += frame
        if len(self.frames) >= ENOUGH:
            self.wire.send(self.frames)
            self.frames.clear()

    def finish(self, results):
        for index, result in results:
            if isinstance(result, BaseException):
                self.fail(index, result)
            else:
                self.give(index, result)
        self.add(framed("done", id=self.id))
        self.wire.send(self.frames)


def together(method, inputs):
    """What a method makes of a list, or what it raises instead."""
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
    """A method that callers may name."""
    if name not in listed:
        defining = next((cls for cls in type(model).__mro__ if name in vars(cls)), None)
        if defining is None or isinstance(vars(defining)[name], property):
            if name not in dir(model):
                raise AttributeError(f"{type(model).__name__!r} has no method {name!r}")
            raise AttributeError(f"{name!r} is no method")
        if not is_own(defining, folder):
            raise AttributeError(f"{name!r} is no method of the model's own: {defining.__module__} defines it")
    found = getattr(model, name)
    if not callable(found):
        raise AttributeError(f"{name!r} is no method")
    return found


class Server:
    """A loaded model and the calls it has been given."""

    def __init__(self, wire, model, folder):
        self.wire = wire
        self.model = model
        self.folder = os.path.realpath(folder)
        self.listed = frozenset(os.environ.get("SANDHOG_METHODS", "").split(","))
        self.calls = queue.SimpleQueue()
        # Those that have not ended, by number.
        self.open = {}
        self.finished = queue.SimpleQueue()

    def listen(self):
        """Takes calls from the worker until it hangs up."""
        while (frame := self.wire.hear()) is not None:
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
                later = lasting(results)
            if later is None:
                answers.finish(results)
            else:
                self.finished.put((answers, later))
        self.calls.put(None)

    def write(self):
        """Sends what models have answered that work on already."""
        while True:
            answers, results = self.finished.get()
            answers.finish(results)

    def results(self, call):
        """What comes of each input, by its index: an answer, or the exception in its place."""
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
        """Answers a list at once; one by one when that raises."""
        results = together(method, [call["inputs"][index] for index in indices])
        if not isinstance(results, BaseException):
            return list(zip(indices, results))
        if len(indices) == 1:
            return [(indices[0], results)]
        # Not while what was raised is handled: it tells of all inputs, and would stand in each one's traceback.
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
        """Passes on pieces; the whole of them is the answer: a text if all are, else a list."""
        whole, size = [], 0
        for piece in pieces:
            if call["cancelled"]:
                pieces.close()
                break
            text = piece if isinstance(piece, str) else lined(piece)
            size += len(text)
            if size > MAX_ANSWER:
                raise ValueError(f"the answer is above the cap of {MAX_ANSWER} bytes")
            whole.append(piece)
            if call["stream"]:
                for start in range(0, len(text), MAX_PIECE):
                    self.wire.say("chunk", id=call["id"], text=text[start : start + MAX_PIECE])
        return "".join(whole) if whole and all(isinstance(piece, str) for piece in whole) else whole


def main():
    folder, name, concurrency = sys.argv[1:]
    wire = Wire(3)
    # A log that is read when the server has died must not be in its memory.
    sys.stdout.reconfigure(line_buffering=True)
    try:
        sys.path.insert(0, folder)
        module, _, cls = name.partition(":")
        model = getattr(importlib.import_module(module), cls)()
        if hasattr(model, "load"):
            model.load()
    except BaseException as error:
        traceback.print_exc()
        wire.say("failed", exception=described(error))
        return 1
    server = Server(wire, model, folder)
    wire.say("ready")
    sys.setswitchinterval(TURN)
    threading.Thread(target=server.listen, daemon=True).start()
    threading.Thread(target=server.write, daemon=True).start()
    for _ in range(int(concurrency) - 1):
        threading.Thread(target=server.work, daemon=True).start()
    # One of them is the main thread: some libraries work in no other.
    server.work()
    return 0


if __name__ == "__main__":
    sys.exit(main())
