"""An HTTP server with the behaviours that the tests need: serve.py PORT."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

hung_up = threading.Event()


def token(text, **more):
    choice = {"index": 0, "delta": {"content": text}, **more}
    return {"object": "chat.completion.chunk", "choices": [choice]}


class Toy(BaseHTTPRequestHandler):
    def answer(self, status, kind, body, **headers):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if self.path in ("/health", "/echo"):
            said = {"method": self.command, "body": body and json.loads(body)}
            self.answer(200, "application/json", json.dumps(said).encode())
        elif self.path == "/never":
            time.sleep(3600)
        elif self.path == "/moved":
            self.answer(302, "text/plain", b"it is elsewhere", location="/echo")
        elif self.path == "/text":
            self.answer(200, "text/plain", b"no JSON")
        elif self.path == "/large":
            self.answer(200, "text/plain", b"x" * (2 << 20))
        elif self.path == "/broken":
            self.answer(503, "text/plain", b"y" * (1 << 20))
        elif self.path == "/hung_up":
            self.answer(200, "application/json", json.dumps(hung_up.wait(60)).encode())
        else:
            try:
                self.stream(self.path.removeprefix("/stream/"))
            except OSError:
                hung_up.set()

    def stream(self, how):
        # No length, so that the end of the connection is the end of the stream.
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.end_headers()
        self.event(token("one "))
        while how == "endless":
            self.event(token("tick "))
            time.sleep(0.01)
        if how == "error":
            self.event({"error": {"type": "overloaded", "message": "no room for the next token"}})
        if how == "named":
            self.wfile.write(b"event: error\ndata: gone\n\n")
        self.event(token("two"))
        if how != "cut":
            self.event(token("", finish_reason="stop"))
            self.wfile.write(b"data: [DONE]\n\n")

    def event(self, data):
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_words):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Toy).serve_forever()
