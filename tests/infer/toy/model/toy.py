"""Models that do what a test wants seen."""

import os
import signal
import time
import uuid


class Toy:
    def load(self):
        self.born = uuid.uuid4().hex

    def echo(self, inputs):
        """Each input with what it shared its call with; some inputs do harm."""
        results = []
        for value in inputs:
            if value == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if value == "hold" and len(inputs) > 1:
                time.sleep(3600)
            if value == "raise":
                raise ValueError("a bad input")
            results.append(KeyError("worse") if value == "worse" else {"input": value, "together": len(inputs)})
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

    def hang(self, _input):
        time.sleep(3600)

    def odd(self, kind):
        return {"object": object(), "nan": float("nan"), "large": "x" * (2 << 20)}[kind]


class Broken:
    def load(self):
        print("looking for the weights")
        raise FileNotFoundError("no weights here")


class Slow:
    def load(self):
        print("this takes a while", flush=True)
        time.sleep(3600)
