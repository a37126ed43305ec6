"""A server in a process of its own, and clients of it; what imports this is skipped where serving is not installed."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httptools")
from cifar_onnx import contract
from cifar_onnx.serving.app import build
from cifar_onnx.serving.gate import Gate
from cifar_onnx.serving.model import Settings

MODEL = Path(__file__).parent / "digits.onnx"
GOLDEN = contract.read(MODEL)[1].golden
SETTINGS = Settings(8, 10**6, 1)


class Server:
    """`python -m cifar_onnx serve` on a free port."""

    def __init__(self, model: Path, *options: object) -> None:
        words = [sys.executable, "-m", "cifar_onnx", "serve", str(model), "--port", "0", *map(str, options)]
        # A pipe that nobody reads would fill, and hold it up.
        self._said = tempfile.TemporaryFile("a+")  # noqa: SIM115
        self.process = subprocess.Popen(words, stderr=self._said, start_new_session=True)
        end = time.monotonic() + 60
        while not (found := re.search(r":(\d+): a page", self.said)):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.05)
        self.port = int(found[1])

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        self._said.close()

    @property
    def said(self) -> str:
        """On the standard error output."""
        self._said.seek(0)
        return self._said.read()

    @property
    def memory(self) -> float:
        """Resident, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    @property
    def files(self) -> int:
        """Open ones."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def connect(self, timeout: float = 30) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        status, _, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def predict(self, picture: bytes, query: str = "") -> tuple[int, Any]:
        """Status and JSON of the answer to a picture."""
        status, _, body = self.ask("POST", f"/predict{query}", picture, {"content-type": "image/png"})
        return status, json.loads(body)

    def count(self, code: int) -> int:
        """Requests that were answered so, or, with 5, with 5xx."""
        text = self.ask("GET", "/metrics")[2].decode()
        found = re.findall(rf'requests_total{{code="{code}\d*",[^}}]*}} ([\d.]+)', text)
        return int(sum(map(float, found)))


def in_process(capacity: int = 8) -> Gate:
    """The app in this process, without a server around it; it takes so many requests at a time."""
    return build(MODEL, SETTINGS, (), 10**6, capacity)


def form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a form with files."""
    parts = [
        b'--b\r\ncontent-disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in files
    ]
    return b"".join(parts) + b"--b--\r\n", {"content-type": "multipart/form-data; boundary=b"}


def raw(picture: bytes) -> bytes:
    """A whole request with a picture as its body."""
    return b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n%s" % (
        len(picture),
        picture,
    )


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer on a connection."""
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        length = 0
        while line := file.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        return status, file.read(length)
