"""A real S3 server on this machine, behind a proxy that fails on demand."""

import http.client
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


class Fault(Enum):
    """What the proxy does to a request instead of passing it on."""

    THROTTLED = auto()
    """503 SlowDown, as S3 says when it is asked too much."""
    BROKEN = auto()
    """500 InternalError."""
    CUT = auto()
    """The connection is cut in the middle of the request's body, before any answer."""
    CUT_ANSWER = auto()
    """The request is done; the connection is cut in the middle of the answer."""
    DENIED = auto()
    """403 AccessDenied."""


CODES = {
    Fault.THROTTLED: (503, "SlowDown"),
    Fault.BROKEN: (500, "InternalError"),
    Fault.DENIED: (403, "AccessDenied"),
}


@dataclass
class Bucket:
    """A bucket behind the proxy. `inject` says how the next requests fail."""

    endpoint: str = ""
    served: list[str] = field(default_factory=list)
    """Every request that was passed on: `PUT /bucket/store/...`."""
    injected: int = 0
    """How many requests met a fault."""
    _methods: frozenset[str] = frozenset()
    _faults: deque[Fault | None] = field(default_factory=deque)
    _forever: Fault | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def inject(
        self, *faults: Fault | None, methods: str = "GET HEAD PUT POST DELETE", forever: Fault | None = None
    ) -> None:
        """Let the next requests of these methods fail so, one each (None: pass), and all after them like `forever`."""
        with self._lock:
            self._methods, self._faults, self._forever = frozenset(methods.split()), deque(faults), forever

    def next_fault(self, method: str) -> Fault | None:
        with self._lock:
            if method not in self._methods:
                return None
            fault = self._faults.popleft() if self._faults else self._forever
            self.injected += fault is not None
            return fault


@contextmanager
def s3_server() -> Iterator[Bucket]:
    """moto's server with one bucket, `bucket`, and the failing proxy in front of it.

    The server is a process of its own: whoever looks at all objects of a process, as vLLM does, trips over Flask's.
    """
    moto = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert moto.stdout is not None
    assert moto.stdin is not None
    host, port = "127.0.0.1", int(moto.stdout.readline())
    bucket = Bucket()

    class Handler(_Proxy):
        behind = (host, port)
        rules = bucket

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    bucket.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
    connection = http.client.HTTPConnection(host, port)
    connection.request("PUT", "/bucket")
    connection.getresponse().read()
    try:
        yield bucket
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.communicate()  # its input ends, and so does it


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind: tuple[str, int]
    rules: Bucket

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        fault = self.rules.next_fault(self.command)
        if fault is Fault.CUT:
            self.rfile.read(length // 2)
            return self._cut()
        if self.headers.get("Expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(length)
        if fault in CODES:
            status, code = CODES[fault]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            return self._answer(status, [("Content-Type", "application/xml")], text)
        connection = http.client.HTTPConnection(*self.behind)
        passed = {
            k: v for k, v in self.headers.items() if k.lower() not in ("expect", "transfer-encoding", "connection")
        }
        passed["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body, passed)
        answer = connection.getresponse()
        text = answer.read()
        self.rules.served.append(f"{self.command} {self.path}")
        kept = [
            (k, v)
            for k, v in answer.getheaders()
            if k.lower() not in ("connection", "transfer-encoding", "date", "server")
        ]
        if fault is Fault.CUT_ANSWER:
            self.send_response(answer.status)
            for name, value in kept:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text[: len(text) // 2])
            return self._cut()
        self._answer(answer.status, kept, text)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815 - the names http.server calls

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        sized = any(name.lower() == "content-length" for name, _ in headers)
        for name, value in headers:
            self.send_header(name, value)
        if not sized:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Tests say what went wrong."""
