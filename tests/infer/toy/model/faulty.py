"""An HTTP server that closes its connections at critical moments: faulty.py PORT.

The path of a request names the moment.
"""

import json
import os
import socket
import struct
import sys
import threading

OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"content-type: application/json\r\n"
EVENTS = OK + b"content-type: text/event-stream\r\n"
CHUNKED = EVENTS + b"transfer-encoding: chunked\r\n\r\n"
# Number of connections so far, and number of requests for each moment.
connections = 0
seen = {}
armed = threading.Event()
listener = None


def event(text, **more):
    choice = {"index": 0, "delta": {"content": text}, **more}
    body = json.dumps({"object": "chat.completion.chunk", "choices": [choice]})
    return b"data: " + body.encode() + b"\n\n"


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


END = event("", finish_reason="stop") + b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"

# Bytes that are sent before the connection is closed.
MOMENTS = {
    "silent": b"",
    "status": b"HTTP/1.1 200",
    "head": JSON + b"content-le",
    "no-http": b"220 mail.example.org ESMTP\r\n\r\n",
    "large-head": OK + b"x: " + b"y" * (1 << 20) + b"\r\n\r\n",
    "bad-length": JSON + b"content-length: many\r\n\r\n{}",
    "body": JSON + b"content-length: 100\r\n\r\n{\"a\": ",
    "no-body": JSON + b"content-length: 100\r\n\r\n",
    "chunk": JSON + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"{\"a\": ") + b"ff\r\n1}",
    "no-last-chunk": JSON + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"{\"a\": 1}"),
    "bad-chunk": JSON + b"transfer-encoding: chunked\r\n\r\nmany\r\n",
    "unframed-body": JSON + b"\r\n{\"a\": [1, 2",
    "unframed-nothing": JSON + b"\r\n",
    "events": CHUNKED + chunk(event("one ")) + chunk(event("two")),
    "event": CHUNKED + chunk(event("one ")) + chunk(event("two"))[:20],
    "last-event": CHUNKED + chunk(event("one ")) + chunk(END),
    "unframed-events": EVENTS + b"\r\n" + event("one ") + event("two"),
    "unframed-event": EVENTS + b"\r\n" + event("one ") + event("two")[:20],
    "unframed-other": EVENTS + b"\r\ndata: {\"a\": 1}\n\ndata: {\"a\":",
    # These answers are complete, or are rejections, so a broken connection is not the problem.
    "ended-early": CHUNKED + chunk(event("one ")) + LAST,
    "refused": b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 100\r\n\r\nbusy",
    "whole-events": CHUNKED + chunk(event("one ")) + chunk(event("two")) + chunk(END) + LAST,
    "unframed-whole": EVENTS + b"\r\n" + event("one ") + event("two") + END,
    "unframed-text": OK + b"\r\nno JSON",
}


def answer(connection, value):
    body = json.dumps(value).encode()
    # As if the connection were kept open.
    connection.sendall(JSON + f"content-length: {len(body)}\r\n\r\n".encode() + body)


def read(connection):
    """Return the path and the body of one request."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None, None
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    lengths = [
        int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")
    ]
    while len(body) < sum(lengths):
        body += connection.recv(65536)
    return lines[0].split(" ")[1], body


def serve(connection, number):
    try:
        behave(connection, number)
    except OSError:
        # The other side has already closed the connection.
        pass


def behave(connection, number):
    with connection:
        path, body = read(connection)
        if path is None:
            return
        moment = path.removeprefix("/")
        seen[moment] = seen.get(moment, 0) + 1
        if moment == "health":
            answer(connection, "well")
        elif moment == "kept":
            # The next request arrives on this connection while it is being closed.
            answer(connection, {"connection": number})
            read(connection)
        elif moment == "once":
            if seen[moment] % 2 == 0:
                answer(connection, json.loads(body or b"null"))
        elif moment == "thrice":
            if seen[moment] % 4 == 0:
                answer(connection, json.loads(body or b"null"))
        elif moment == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif moment == "half-closed":
            connection.shutdown(socket.SHUT_WR)
            read(connection)
        elif moment == "reset-events":
            connection.sendall(CHUNKED + chunk(event("one ")))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif moment == "exit":
            os._exit(1)
        elif moment == "exit-events":
            connection.sendall(CHUNKED + chunk(event("one ")))
            os._exit(1)
        elif moment == "arm":
            armed.set()
            answer(connection, "armed")
        elif moment == "held":
            # Waits until this process is killed. The process that replaces it was never armed.
            connection.sendall(CHUNKED + chunk(event("one ")))
            if armed.is_set():
                threading.Event().wait()
            connection.sendall(chunk(event("two")) + chunk(END) + LAST)
        elif moment == "deaf":
            # The server keeps running, but accepts no more connections.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        else:
            connection.sendall(MOMENTS[moment])
            connection.shutdown(socket.SHUT_WR)
            # Closing a connection with unread bytes would reset it.
            read(connection)


def main():
    global connections, listener
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            threading.Event().wait()
        connections += 1
        threading.Thread(target=serve, args=(connection, connections), daemon=True).start()


main()
