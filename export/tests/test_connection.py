"""How slowly a request may come, by a clock that is moved by hand."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httptools")
import uvicorn
from uvicorn.server import ServerState

from cifar_onnx.serving import connection
from cifar_onnx.serving.connection import PIPELINED, RATE, SECONDS, DeadlineProtocol

WHOLE = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nx"
HEAD = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20000000\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class Client(asyncio.SelectorEventLoop):
    """A connection, and the loop that it runs in, whose seconds pass when told."""

    now = 0.0
    early = False  # whether requests are answered before their body has come

    def time(self) -> float:
        return self.now

    def begin(self) -> None:
        self.go = asyncio.Event()  # when whole requests are answered

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            while not self.early and (await receive()).get("more_body"):
                pass
            if not self.early:
                await self.go.wait()
            await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

        config = uvicorn.Config(app, log_config=None, lifespan="off")
        self.protocol = DeadlineProtocol(config, ServerState(), {}, self)
        self.transport = Transport()
        self.protocol.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        self.protocol.data_received(data)
        self.wait(0)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(3):
            self.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    client.begin()
    yield client
    client.protocol.connection_lost(None)
    client.go.set()
    client.wait(SECONDS)
    client.close()


def test_silence_ends_an_upload_whatever_came_before(client: Client) -> None:
    client.send(HEAD + bytes(19_999_999))
    client.wait(SECONDS - 1)
    assert not client.transport.closed
    client.wait(1)
    assert client.transport.closed
    assert client.transport.written.startswith(b"HTTP/1.1 408 Request Timeout")
    assert b"send it within 10 seconds, or 50,000 bytes a second" in client.transport.written


@pytest.mark.parametrize(("rate", "served"), [(RATE, True), (RATE // 2, False)])
def test_an_upload_may_take_long_at_a_rate(client: Client, rate: int, served: bool) -> None:
    client.send(HEAD)
    for _ in range(60):
        client.wait(1)
        if not client.transport.closed:
            client.send(bytes(rate))
    assert client.transport.closed is not served


def test_a_client_may_pause_between_bursts(client: Client) -> None:
    client.send(HEAD)
    for _ in range(10):
        client.wait(SECONDS - 1)
        client.send(bytes(int(SECONDS * RATE)))
    assert not client.transport.closed


@pytest.mark.parametrize("closing", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nconnection: close\r\n"])
def test_who_is_answered_early_and_wants_to_close_may_send_on(client: Client, closing: bytes) -> None:
    """As nginx does: closed while it sends, it would be reset, and answer 502 to its own client."""
    client.early = True
    client.send(HEAD.replace(b"HTTP/1.1\r\n", closing))
    assert client.transport.written.startswith(b"HTTP/1.1 413")
    client.send(bytes(19_999_999))
    assert not client.transport.closed
    client.send(b"x")
    assert client.transport.closed
    assert client.transport.written.count(b"HTTP/1.1") == 1


def answered(client: Client) -> int:
    """How many requests are, once the server comes to it."""
    client.go.set()
    for _ in range(2 * PIPELINED):
        client.wait(0)
    return client.transport.written.count(b"HTTP/1.1 413")


def test_of_requests_that_wait_for_no_answer_so_many_are_taken(client: Client) -> None:
    client.send(WHOLE * 1000)
    assert len(client.protocol.pipeline) == PIPELINED
    assert answered(client) == 1 + PIPELINED
    assert client.transport.closed


@pytest.mark.parametrize("whole", [1, 2])
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(HEAD.replace(b"content-length: 20000000", b"transfer-encoding: chunked") + b"ZZ\r\n", id="chunk"),
        pytest.param(WHOLE.replace(b"host", b"connection: upgrade\r\nupgrade: h2c\r\nhost") + WHOLE, id="upgrade"),
        pytest.param(b"nonsense\r\n\r\n", id="nonsense"),
    ],
)
def test_whole_requests_are_answered_whatever_follows(client: Client, whole: int, wrong: bytes) -> None:
    client.send(WHOLE * whole)
    client.send(wrong)
    client.send(WHOLE)
    assert answered(client) == whole
    assert client.transport.written.count(b"HTTP/1.1") == whole
    assert client.transport.closed


def test_the_request_that_runs_is_told_that_its_client_has_gone_whatever_waits_behind_it(client: Client) -> None:
    heard: list[str] = []

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        while "http.disconnect" not in heard:
            heard.append((await receive())["type"])

    client.protocol.app = app
    client.send(WHOLE + WHOLE)
    client.protocol.connection_lost(None)
    client.wait(0)
    assert heard == ["http.request", "http.disconnect"]


def test_headers_without_end_are_refused_with_the_reason(client: Client) -> None:
    client.send(HEAD[:-2])
    for _ in range(6):
        client.send(b"name: value\r\n" * 1000)
    head, _, body = client.transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert body == b'{"error": "the headers are larger than 65,536 bytes"}'
    assert client.transport.closed


def test_headers_without_end_are_not_kept_behind_a_request(client: Client) -> None:
    client.send(WHOLE + HEAD[:-2])
    for _ in range(3):
        client.send(b"name: value\r\n" * 10_000)
    assert len(client.protocol.headers) < 11_000
    assert answered(client) == 1
    assert client.transport.closed


def test_a_request_that_is_not_read_is_not_slow(client: Client) -> None:
    client.send(WHOLE)
    client.send(WHOLE[:-1])
    assert client.protocol.flow.read_paused
    for _ in range(3):
        client.wait(SECONDS)
    assert not client.transport.closed
    assert answered(client) == 1
    client.send(WHOLE[-1:])
    assert answered(client) == 2
    client.send(WHOLE[:-1])
    client.wait(SECONDS)
    assert client.transport.closed


@pytest.mark.parametrize("closing", [b"connection: close\r\n", b""])
def test_an_answer_that_is_not_taken_ends_however_little_is_left(
    monkeypatch: pytest.MonkeyPatch, closing: bytes
) -> None:
    monkeypatch.setattr(connection, "SECONDS", 0.2)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"60000")]})
        await send({"type": "http.response.body", "body": bytes(60_000)})

    class Small(DeadlineProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        server = await loop.create_server(lambda: Small(config, ServerState(), {}, loop), "127.0.0.1", 0)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(server.sockets[0].getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n%s\r\n" % closing)
            await asyncio.wait_for(lost.wait(), 4)  # before uvicorn's own end of idle connections
        server.close()

    lost = asyncio.Event()
    asyncio.run(ask())
