"""Static hosts on this machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


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


@contextmanager
def serve(folder: Path, handler: type[Host]) -> Iterator[Server]:
    with Server(partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
