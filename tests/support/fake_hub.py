"""A Hugging Face hub of one model on this machine, and a cache that holds it: files and a server, no network."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.support import ROOT

REPOSITORY, COMMIT = "org/tiny", "c0ffee" + "0" * 34
MODEL = f"{REPOSITORY}@{COMMIT}"


def fill_cache(cache: Path, model: Path) -> Path:
    """Put `model` into a hub cache as a finished download leaves it; returns its snapshot."""
    repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(model, repository / "snapshots" / COMMIT))


class FakeHub:
    """What the server has been asked for: `fetched` counts the downloads of each file."""

    def __init__(self, model: Path) -> None:
        self.files = {file.name: file.read_bytes() for file in model.iterdir()}
        self.files["pytorch_model.bin"] = b"the same weights in a format that nobody reads"
        self.fetched: Counter[str] = Counter()
        self.url = ""


@contextmanager
def fake_hub(model: Path) -> Iterator[FakeHub]:
    """Serve `model` as `MODEL` while the block runs."""
    hub = FakeHub(model)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                tree = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in hub.files.items()]
                self._answer(json.dumps(tree).encode(), "application/json")
            elif (name := path.rpartition("/")[2]) in hub.files:
                hub.fetched[name] += self.command == "GET"
                self._answer(hub.files[name], "application/octet-stream")
            else:
                self._answer(b"", "text/plain")

        do_HEAD = do_GET  # noqa: N815 - the name is the library's

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{urlsplit(self.path).path.rpartition("/")[2]}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def find_base_on_a_machine(home: Path, digest: str, **environment: str) -> "subprocess.Popen[str]":
    """Begin to have a process find `MODEL`, with a hub cache in `home`; it prints the folder, or the fault."""
    script = (
        "from workers.sources import SourceFault, find_base\n"
        f"try: print(find_base({MODEL!r}, {digest!r}))\n"
        "except SourceFault as fault: print('fault:', fault)\n"
    )
    around = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **environment}
    around.pop("HF_HUB_CACHE", None)
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
