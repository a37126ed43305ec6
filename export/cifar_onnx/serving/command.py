"""`python -m cifar_onnx serve`: a socket, uvicorn, and an orderly end."""

import argparse
import logging
import socket
import sys
import time
from types import FrameType

import uvicorn

from cifar_onnx.errors import InputError
from cifar_onnx.serving.app import build
from cifar_onnx.serving.connection import DeadlineProtocol
from cifar_onnx.serving.gate import Gate
from cifar_onnx.serving.model import Settings

_GRACE = 8.0  # seconds that requests have to end in once the server is told to; docker stop kills after 10
_NOTICE = 0.5  # seconds in which who has a connection open, and soon asks again, is told so before it is closed


class Server(uvicorn.Server):
    """uvicorn's, which first answers what has been asked, and says meanwhile that it is not ready."""

    def __init__(self, config: uvicorn.Config, gate: Gate, greeting: str) -> None:
        super().__init__(config)
        self._gate, self._greeting, self._told = gate, greeting, 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where it serves once it does, and ends in order."""
        await super().startup(sockets)
        print(self._greeting, file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; a second signal ends at once."""
        if self._gate.draining:
            self.should_exit = self.force_exit = True
        self._gate.draining, self._told = True, time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        waited = time.monotonic() - self._told
        if self._gate.draining and (waited > _GRACE or not self._busy(waited)):
            self.should_exit = True
        return await super().on_tick(counter)

    def _busy(self, waited: float) -> bool:
        """Whether pictures are being classified, answers are on their way, or clients have had no notice yet."""
        connections = self.server_state.connections
        if self._gate.working > 0 or (connections and waited < _NOTICE):
            return True
        return any(isinstance(each, DeadlineProtocol) and each.answering for each in connections)


def serve(options: argparse.Namespace) -> int:
    """Serve until a signal.

    Raises:
        ContractError: the model cannot be served.
        InputError: the address cannot be listened at.
    """
    settings = Settings(options.max_batch, int(options.max_pixels * 1e6), options.threads, options.provider)
    hosts = {options.host, socket.gethostname(), *options.allow_host}
    gate = build(options.model, settings, hosts, int(options.max_body * 1e6), options.max_requests, options.runtime)
    listener = _listen(options.host, options.port)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("cifar_onnx").setLevel(logging.INFO)
    for name in ("uvicorn", "python_multipart"):  # what clients do wrong, they are told
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    config = uvicorn.Config(
        gate,
        http=DeadlineProtocol,
        ws="none",
        log_config=None,  # uvicorn's would close other programs' handlers
        access_log=options.access_log,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,  # beyond that, for answers that are on their way
    )
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    greeting = f"serving {options.model} at {address}: a page for people, and /docs for programs"
    Server(config, gate, greeting).run([listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # at "::" IPv4, too
        # Who comes before uvicorn is ready waits.
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        reason = str(error.strerror).partition(" (while")[0] if isinstance(error, OSError) else "no such name"
        where = f"{host}, port {port} ({reason})"
        raise InputError(f"cannot listen on {where}: name others by --host, --port") from None
