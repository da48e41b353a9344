"""An HTTP server that remembers all prompts and parses requests leniently: memory.py PORT."""

import json
import posixpath
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

asked = []


class Memory(BaseHTTPRequestHandler):
    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("content-length", 0)))
        # The server ignores case, spaces, escapes, and empty and `..` segments.
        url = urlsplit(unquote(self.path.strip("/")).join(["/", ""]))
        path = posixpath.normpath(url.path).lower()
        fields = dict(parse_qsl(url.query))
        body = json.loads(text) if text else {}
        for part in body if isinstance(body, list) else [body]:
            fields |= part if isinstance(part, dict) else {}
        fields = {name.strip().lower(): value for name, value in fields.items()}
        said = {"path": self.path, "body": body}
        if path in ("/slots", "/props", "/metrics"):
            said["asked"] = asked
        if "prompt" in fields:
            said["known"] = bool(fields.get("cache_prompt")) and fields["prompt"] in asked
            said["slot"] = fields.get("id_slot")
            asked.append(fields["prompt"])
        answer = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_words):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Memory).serve_forever()
