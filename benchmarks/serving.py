"""Requests a second and their latency: this server, one picture at a time, a plain FastAPI app, and LitServe.

python benchmarks/serving.py model.onnx: 64 clients in a process of their own, each with one picture in a form, over and
over again, after a warm-up; the servers one after the other on the same CPUs. FastAPI and LitServe need .venv-peers
(make bench installs it).
"""

import argparse
import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from bench import PEERS, ROOT, machine, show, there

from cifar_onnx.images import encode_png

HERE = ROOT / "benchmarks" / "peers"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def load(port: int, request: bytes, clients: int, duration: float) -> list[float]:
    """Latencies in seconds of all requests of so many clients; one loop, which leaves the CPUs to the server."""
    seconds: list[float] = []
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ, [time.perf_counter(), b""])
        end = time.perf_counter() + duration
        while (now := time.perf_counter()) < end:
            for key, _ in selector.select(1):
                state = key.data
                state[1] += key.fileobj.recv(65536)  # type: ignore[union-attr]
                head, found, body = state[1].partition(b"\r\n\r\n")
                if not found or len(body) < int(_LENGTH.search(head)[1]):  # type: ignore[index]
                    continue
                if not head.startswith(b"HTTP/1.1 200"):
                    sys.exit(state[1].decode())
                now = time.perf_counter()
                seconds.append(now - state[0])
                key.fileobj.sendall(request)  # type: ignore[union-attr]
                state[:] = now, b""
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
    return seconds


def form(picture: bytes) -> bytes:
    """A request with a picture in the field `files`."""
    body = (
        b'--b\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\ncontent-type: image/png\r\n\r\n'
        + picture
        + b"\r\n--b--\r\n"
    )
    head = "POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def measure(command: Sequence[object], request: bytes, clients: int, duration: float) -> tuple[float, list[float]]:
    """Requests a second, and their latencies at 50, 90 and 99 percent in milliseconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(port) if word == "PORT" else str(word) for word in command]
    with tempfile.TemporaryFile("w+") as said:
        server = subprocess.Popen(  # noqa: S603
            words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        try:
            for _ in range(300):
                with socket.socket() as knock:
                    if knock.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if server.poll() is not None:
                    said.seek(0)
                    sys.exit(f"{' '.join(words)}\n{said.read()}")
                time.sleep(0.1)
            else:
                sys.exit(f"{' '.join(words)}: does not answer")
            load(port, request, clients, 1.0)
            seconds = load(port, request, clients, duration)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # LitServe's processes outlive their parent
            server.wait()
    return len(seconds) / duration, (1000 * np.percentile(seconds, [50, 90, 99])).tolist()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=there)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--size", type=int, default=32, help="side of the picture")
    options = parser.parse_args()
    picture = np.random.default_rng(0).integers(256, size=(options.size, options.size, 3), dtype=np.uint8)
    request = form(encode_png(picture))
    model = options.model
    ours = [sys.executable, "-m", "cifar_onnx", "serve", model, "--port", "PORT"]
    peers: dict[str, list[object]] = {
        "plain FastAPI": [PEERS, HERE / "fastapi_server.py", model, "PORT"],
        "LitServe, batches of 32": [PEERS, HERE / "litserve_server.py", model, "PORT"],
    }
    own = {"cifar_onnx serve, one at a time": [*ours, "--max-batch", "1"], "cifar_onnx serve": ours}
    servers = {**(peers if PEERS.exists() else {}), **own}
    found = {name: measure(each, request, options.clients, options.seconds) for name, each in servers.items()}
    name, (first, _) = next(iter(found.items()))
    print(machine())
    head = (f"{options.clients} clients", "requests/s", f"of {name}", "p50 ms", "p90", "p99", "p99/p50")
    rows = [
        (
            name,
            f"{rate:,.0f}",
            f"{rate / first:.2f}",
            *(f"{ms:.1f}" for ms in latency),
            f"{latency[2] / latency[0]:.1f}",
        )
        for name, (rate, latency) in found.items()
    ]
    show(head, rows)


if __name__ == "__main__":
    main()
