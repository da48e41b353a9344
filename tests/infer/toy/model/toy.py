"""Models with the behaviours that the tests need."""

import gc
import json
import os
import signal
import struct
import sys
import time
import uuid


class Panic(BaseException):
    pass


class Unsayable:
    def tolist(self):
        sys.exit("an answer that cannot be looked at")


class Toy:
    def load(self):
        self.born = uuid.uuid4().hex

    def echo(self, inputs):
        """Return each input with the size of its batch; some inputs make the model fail."""
        results = []
        # Behaves like a server that logs its requests.
        print("asked", inputs, flush=True)
        if any(str(value).startswith("bad") for value in inputs):
            raise ValueError(f"bad ones among {inputs}")
        for value in inputs:
            if value == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if value == "babble":
                answer = {"result": {"id": "what was asked was " + str(self.asked)}}
                body = json.dumps(answer).encode()
                os.write(3, struct.pack(">I", len(body)) + body)
            if value == "hold" and len(inputs) > 1:
                time.sleep(3600)
            if value == "raise":
                raise ValueError("a bad input")
            if value == "exit":
                sys.exit("a model that ends its process")
            if value == "panic":
                raise Panic("what a native library does on a bad input")
            self.asked = value
            result = {"input": value, "together": len(inputs)}
            results.append(KeyError("worse") if value == "worse" else result)
        return results

    def identity(self, _input):
        return self.born

    def gpus(self, _input):
        return os.environ.get("SANDHOG_GPUS")

    def forever(self, _input):
        while True:
            yield "tick\n"
            time.sleep(0.01)

    def count(self, number):
        for i in range(number):
            yield {"i": i}

    def once(self, text):
        yield text

    def remembered(self, _input):
        """Return the number of entries that the server keeps for calls, including this one."""
        server = next(thing for thing in gc.get_objects() if type(thing).__name__ == "Server")
        return sum(len(kept) for kept in vars(server).values() if isinstance(kept, (dict, set)))

    def hang(self, _input):
        time.sleep(3600)

    def odd(self, kind):
        return {
            "object": object(),
            "nan": float("nan"),
            "large": "x" * (2 << 20),
            "half": "\ud83d",
            "unsayable": Unsayable(),
        }[kind]

    def leave(self, how):
        if how == "panic":
            raise Panic("\ud83d")
        sys.exit(how)


class Broken:
    def load(self):
        print("looking for the weights")
        raise FileNotFoundError("no weights here")


class Slow:
    def load(self):
        print("this takes a while", flush=True)
        time.sleep(3600)
