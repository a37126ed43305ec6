"""Hosts on this machine."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from handmade import INFO

from cifar_onnx import site


class Server(ThreadingHTTPServer):
    """Knows its address, and what it was asked for."""

    def __init__(self, handler: partial[SimpleHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []


class Host(SimpleHTTPRequestHandler):
    """Answers with files of its folder."""

    server: Server

    def log_message(self, *_words: object) -> None:
        self.server.asked.append(f"{self.command} {self.path}")


class Stub(Host):
    """Answers like the real one, slowly, and first that it is busy."""

    runs: site.Runs = "server"
    about: ClassVar[dict[str, Any]] = {**INFO, "name": "colours", "classes": ["red", "green", "blue"]}
    lock = threading.Lock()
    running = most = posts = 0

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", f"{site.CSP}; frame-ancestors 'none'")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.send_header("Retry-After", "0.1")
        self.end_headers()
        self.wfile.write(body.encode() if isinstance(body, str) else json.dumps(body).encode())

    def do_GET(self) -> None:
        if self.path == "/":
            self.answer(200, site.index(self.runs))
        elif self.path == "/contract":
            self.answer(200, self.about)
        else:
            super().do_GET()

    def do_POST(self) -> None:
        cls = type(self)
        with cls.lock:
            cls.posts += 1
            cls.running += 1
            first, cls.most = cls.posts == 1, max(cls.most, cls.running)
        body = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(0.1)
        with cls.lock:
            cls.running -= 1
        if first:
            return self.answer(503, {"error": "busy"})
        if b"bad" in body:
            return self.answer(422, {"error": "bad.png: cannot be decoded"})
        top = [{"label": "red", "probability": 0.75}, {"label": "blue", "probability": 0.25}]
        row = {"name": "a", "label": "red", "probability": 0.75, "top": top, "labels": ["red"], "unknown": False}
        model = {"name": self.about["name"], "digest": self.about["digest"]}
        return self.answer(200, {"model": model, "milliseconds": 3.2, "predictions": [row]})


@contextmanager
def serve(folder: Path, handler: type[Host]) -> Iterator[Server]:
    with Server(partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
