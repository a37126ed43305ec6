"""What clients cannot do to the server."""

import asyncio
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from handmade import run_length_encoded, with_info
from PIL import Image
from served import GOLDEN, MODEL, SETTINGS, Server, answer, form, in_process, raw

from cifar_onnx import InputError, contract, images, probe, site
from cifar_onnx.serving import command, model, predictions, tensors
from cifar_onnx.serving.connection import DeadlineProtocol
from cifar_onnx.serving.gate import Gate
from cifar_onnx.serving.metrics import Metrics
from cifar_onnx.serving.model import Served
from cifar_onnx.serving.room import Room


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(MODEL, "--max-body", 1) as running:
        yield running


def blank(side: int) -> bytes:
    """A small file of a large picture."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def scans(count: int) -> bytes:
    """A JPEG that goes over its picture again and again."""
    buffer = io.BytesIO()
    Image.new("L", (1000, 1000)).save(buffer, "JPEG", progressive=True)
    *rest, last = buffer.getvalue()[:-2].split(b"\xff\xda")
    return b"\xff\xda".join([*rest, *[last] * count]) + b"\xff\xd9"


async def ask(
    gate: Gate, path: str, body: bytes, headers: dict[str, str], leave: asyncio.Event, method: str = "POST"
) -> tuple[int, bytes]:
    """Status and body of the answer to a client, in this process, that waits for it until it leaves."""
    request = {"type": "http", "method": method, "path": path, "query_string": b"", "root_path": ""}
    given = [(name.lower().encode(), each.encode()) for name, each in {"host": "localhost", **headers}.items()]
    messages = [{"type": "http.request", "body": body}]
    said: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    await gate(request | {"headers": given, "state": {}}, receive, send)
    return said[0]["status"], said[1]["body"]


def binary(shape: list[int], **words: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request of the Open Inference Protocol with black pixels."""
    size = int(np.prod(shape))
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor], **words}).encode()
    return head + bytes(size), {"Inference-Header-Content-Length": str(len(head))}


def read_all(connection: socket.socket) -> bytes:
    """Until the server closes, or resets."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def good(server: Server, count: int) -> int:
    """How many of so many good requests are served."""
    return sum(server.predict(GOLDEN[n % len(GOLDEN)].encoded)[0] == 200 for n in range(count))


def malformed(generator: random.Random) -> bytes:
    """A request with something wrong with it, or many things."""
    body, headers = form(("a.png", GOLDEN[0].encoded))
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    infer = json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}, {"name": "in_set"}]})
    seed = generator.choice(
        [
            raw(GOLDEN[0].encoded),
            b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s"
            % (headers["content-type"].encode(), len(body), body),
            b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s"
            % (len(infer), infer.encode()),
            b"GET /v2/models/digits HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\n\r\n" + b"[" * 20000,
            b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        ]
    )
    data = bytearray(seed)
    for _ in range(generator.randint(1, 8)):
        at = generator.randrange(len(data))
        kind = generator.randrange(4)
        if kind == 0:
            data[at] = generator.randrange(256)
        elif kind == 1:
            del data[at : at + generator.randint(1, 40)]
        elif kind == 2:
            data[at:at] = generator.randbytes(generator.randint(1, 20))
        else:
            data[at:at] = generator.choice([b"\r\n", b"\0", b": ", b"%", b"-1", b"99999999999", b"..//", b"\x1b[31m"])
        if not data:
            break
    return bytes(data)


def test_malformed_requests_break_nothing(server: Server) -> None:
    """10,000 of them: no 5xx, memory +20 MB, no file left open, then 200 of 200 good ones."""
    assert good(server, 50) == 50
    memory, files = server.memory, server.files

    def some(seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(2500):
            with server.connect() as connection:
                try:
                    connection.sendall(malformed(generator))
                    connection.shutdown(socket.SHUT_WR)
                except OSError:  # it has closed already
                    continue
                head = read_all(connection)[:12]
                assert not head or head.startswith(b"HTTP/1.1 ")
                assert not head.startswith(b"HTTP/1.1 5")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(some, range(4)))
    assert server.count(5) == 0
    assert server.memory - memory <= 20
    assert good(server, 200) == 200
    assert server.files <= files + 2


def test_nonsense_behind_requests_is_not_what_they_are_answered_by(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(raw(GOLDEN[0].encoded) * 2 + b"NONSENSE\r\n\r\n")
        said = read_all(connection)  # until it closes
        assert said.count(b"HTTP/1.1 ") == said.count(b"HTTP/1.1 200 OK") == 2


def test_slow_clients_are_cut_off_while_others_are_served(server: Server) -> None:
    """30 that say nothing, 30 with half their headers, 30 with half their body, and 5 that take no answer.

    And one that has been answered, and sends a line break.
    """
    body = raw(GOLDEN[0].encoded)
    large = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    files = server.files
    began = time.monotonic()
    slow = [server.connect() for _ in range(95)]
    for connection in slow[30:60]:
        connection.sendall(body[:45])
    for connection in slow[60:90]:
        connection.sendall(body[:-9])
    for connection in slow[90:]:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(large * 500)
    idle = server.connect()
    idle.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert answer(idle)[0] == 200
    idle.sendall(b"\r\n")
    times = []
    while time.monotonic() < began + 9:
        for connection in slow[30:60]:
            connection.sendall(b"x")  # and one byte more, now and then
        started = time.monotonic()
        assert good(server, 5) == 5
        times.append(time.monotonic() - started)
        time.sleep(0.5)
    assert np.median(times) < 1
    for connection in slow[:90]:
        connection.settimeout(max(0.1, began + 14 - time.monotonic()))
        said = read_all(connection)
        assert not said or b"408 Request Timeout" in said
        connection.close()
    with idle:
        idle.settimeout(max(0.1, began + 14 - time.monotonic()))
        assert b"408" in read_all(idle)
    assert time.monotonic() - began <= 15
    while server.files > files + 2:  # nor are those that take no answer held
        assert time.monotonic() - began <= 40
        time.sleep(0.2)
    for connection in slow[90:]:
        connection.close()
    assert good(server, 5) == 5


def test_trailers_take_no_memory(server: Server) -> None:
    memory = server.memory
    with server.connect() as connection:
        head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n"
        connection.sendall(head + b"\r\n1\r\nx\r\n0\r\n")
        for _ in range(20):
            connection.sendall(b"".join(b"a%d: b\r\n" % n for n in range(20_000)))
        connection.sendall(b"\r\n")
        assert answer(connection)[0] == 422
    assert server.memory - memory <= 10


def test_long_texts_as_numbers_take_no_memory(server: Server) -> None:
    memory = server.memory
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 20, 20, 3], "data": ["x" * 100_000] + ["a"] * 1199}
    body = json.dumps({"inputs": [tensor]}).encode()
    assert server.ask("POST", "/v2/models/digits/infer", body)[0] == 400
    assert server.memory - memory <= 20


def test_long_json_is_refused_unread() -> None:
    """Whose empty lists would take 21 times its length, and half a second for a few megabytes."""
    with Server(MODEL) as server:
        memory = server.memory
        status, _, body = server.ask("POST", "/v2/models/digits/infer", b'{"inputs": [%s[]]}' % (b"[]," * 1_700_000))
        assert status == 413
        assert json.loads(body)["error"].startswith("the JSON has 5,100,016 bytes, and 5,000,000 at most are read")
        assert server.memory - memory <= 20
        pixels, headers = binary([100, 200, 100, 3])  # 6 MB
        assert server.ask("POST", "/v2/models/digits/infer", pixels, headers)[0] == 200


def test_nothing_is_kept_of_json_but_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the pictures run: the rest of it may take 130 MB."""

    class Message(dict[str, Any]):
        """Which, unlike a dict, can be referred to weakly."""

    kept: list[weakref.ref[Message]] = []

    def loads(text: bytes) -> Message:
        message = Message(json.loads(text))
        kept.append(weakref.ref(message))
        return message

    squares, alive = Served.square, []

    async def looked(served: Served, picture: bytes | images.Pixels) -> images.Pixels:
        alive.append(kept[0]() is not None)
        return await squares(served, picture)

    monkeypatch.setattr(tensors, "json", SimpleNamespace(loads=loads, dumps=json.dumps))
    monkeypatch.setattr(Served, "square", looked)
    gate = in_process()
    sent = binary([2, 8, 8, 3], id="seven", more=[[]])
    status, body = asyncio.run(ask(gate, "/v2/models/digits/infer", *sent, asyncio.Event()))
    assert (status, json.loads(body)["id"]) == (200, "seven")
    assert alive == [False, False]


def test_json_is_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the memory it takes does not add up."""
    reading: list[bytes] = []
    most: list[int] = []

    def loads(text: bytes) -> Any:
        reading.append(text)
        time.sleep(0.02)
        most.append(len(reading))
        reading.pop()
        return json.loads(text)

    monkeypatch.setattr(tensors, "json", SimpleNamespace(loads=loads, dumps=json.dumps))
    gate = in_process()

    async def clients() -> list[tuple[int, bytes]]:
        stay = asyncio.Event()
        sent = binary([1, 8, 8, 3])
        return await asyncio.gather(*(ask(gate, "/v2/models/digits/infer", *sent, stay) for _ in range(5)))

    assert [status for status, _ in asyncio.run(clients())] == [200] * 5
    assert most == [1] * 5


def test_a_body_is_not_taken_for_a_request(server: Server) -> None:
    hidden = b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
            b"content-type: image/png\r\ncontent-length: %d\r\n\r\n" % len(hidden)
        )
        time.sleep(0.2)
        with suppress(OSError):
            connection.sendall(hidden)
        said = read_all(connection)
    assert said.startswith(b"HTTP/1.1 501")
    assert said.count(b"\r\n\r\n") == 1


def test_half_sent_bodies_lock_nobody_out() -> None:
    with Server(MODEL, "--max-requests", 4) as server:
        half = [server.connect() for _ in range(8)]
        for connection in half:
            connection.sendall(raw(GOLDEN[0].encoded)[:-9])
        time.sleep(0.3)
        assert good(server, 5) == 5
        for connection in half:
            connection.close()


@pytest.mark.parametrize("size", [0, 10**6 + 1])
def test_files_take_nobodys_place_and_are_sent_whatever_comes_with_the_request(size: int) -> None:
    """FileResponse receives what is sent to it, to hear when its client goes."""
    gate = in_process(capacity=1)
    gate.working = 1
    assert asyncio.run(ask(gate, "/page.css", bytes(size), {}, asyncio.Event(), "GET")) == (
        200,
        site.pages()["page.css"].read_bytes(),
    )
    assert gate.working == 1


@pytest.mark.slow
def test_a_large_answer_may_take_long(tmp_path: Path) -> None:
    """20 MB at 1 MB/s: longer than a client that takes nothing is waited for."""
    path = tmp_path / "large.onnx"
    data, about = contract.read(MODEL)
    path.write_bytes(with_info(data, about.info | {"digest": contract.BLANK, "padding": "x" * 20_000_000}))
    with Server(path) as server, server.connect() as connection:
        if server.ask("HEAD", "/model.onnx")[0] == 404:
            pytest.skip("onnxruntime-web is not installed: make web")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        connection.sendall(b"GET /model.onnx HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        received, began = 0, time.monotonic()
        while part := connection.recv(100_000):
            received += len(part)
            time.sleep(max(0, began + received / 1_000_000 - time.monotonic()))
        assert received > path.stat().st_size
        assert time.monotonic() - began > 11


@pytest.mark.parametrize("way", ["declared", "chunked", "tiny chunks"])
def test_large_bodies_are_refused(server: Server, way: str) -> None:
    memory = server.memory
    with server.connect() as connection:
        head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n"
        size = 200_000 if way == "tiny chunks" else 60
        piece = b"1\r\nx\r\n" * size if way == "tiny chunks" else b"ea60\r\n" + b"x" * 60_000 + b"\r\n"
        try:
            if way == "declared":
                connection.sendall(head + b"content-length: 500000000\r\n\r\n" + b"x" * 3_000_000)
            else:
                connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
                for _ in range(6 if way == "tiny chunks" else 40):
                    connection.sendall(piece)
        except OSError:
            pass  # it has closed already
        assert answer(connection)[0] == 413
    assert server.memory - memory <= 1 + 16
    status, _, body = server.ask("POST", "/predict", b"x" * 1_000_001, {"content-type": "image/png"})
    assert (status, json.loads(body)["error"]) == (413, "the request is larger than the limit of 1,000,000 bytes")


@pytest.mark.parametrize(("digits", "status"), [("0" * 5000 + "{}", 200), ("9" * 5000, 413)])
def test_a_length_of_thousands_of_digits_breaks_nothing(digits: str, status: int) -> None:
    """Python's int refuses it, and the server's parser lets those with leading zeros pass."""
    gate = in_process()
    headers = {"content-type": "image/png", "content-length": digits.format(len(GOLDEN[0].encoded))}
    assert asyncio.run(ask(gate, "/predict", GOLDEN[0].encoded, headers, asyncio.Event()))[0] == status


def test_many_large_bodies_at_once_are_told_to_come_back() -> None:
    """Of 40 that are sent but for their last byte, 16 are held, and memory grows by no more than these."""
    body = bytes(900_000)
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 900000\r\n\r\n"
    with Server(MODEL, "--max-body", 1) as server:
        memory = server.memory
        clients = [server.connect() for _ in range(40)]
        for client in clients:
            client.sendall(head + body[:-1])
        time.sleep(1)
        assert server.memory - memory <= 40
        for client in clients:
            client.sendall(body[-1:])
        codes = [answer(client)[0] for client in clients]
        for client in clients:
            client.close()
        assert codes.count(422) >= 16
        assert codes.count(503) == 40 - codes.count(422)
        assert codes.count(503) > 0


def test_bombs_are_refused_at_once(server: Server) -> None:
    """Within 100 ms, where the machine has them."""
    memory = server.memory
    too_large = "pixels are more than the limit of 25,000,000"
    bombs = [(blank(5001), too_large), (blank(9000), too_large), (scans(1000), "more than 100 scans")]
    bombs.append((run_length_encoded(65_535, 381), "a run-length encoded BMP of more than 97,656 pixels is slow"))
    for bomb, words in bombs:
        times = []
        for _ in range(5):
            began = time.monotonic()
            status, said = server.predict(bomb)
            times.append(time.monotonic() - began)
            assert status == 422
            assert words in said["error"]
        assert min(times) <= 0.1
    assert server.memory - memory <= 20


def test_pictures_of_a_request_have_a_limit_together() -> None:
    """Ten times that of one, by what their headers say; what is refused alone does not count."""
    full, small, bomb = (("a.png", blank(side)) for side in (100, 10, 101))
    with Server(MODEL, "--max-pixels", 0.01) as server:
        for files, expected in (([full] * 10 + [bomb] * 5, 200), ([small] * 500, 200), ([full] * 10 + [small], 413)):
            status, _, body = server.ask("POST", "/predict", *form(*files))
            assert status == expected
    assert json.loads(body)["error"].startswith(
        "the pictures have 100,100 pixels, and a request 100,000 at most: send fewer at a time, "
        "or serve with a larger --max-pixels"
    )


@pytest.mark.parametrize("path", ["/predict", "/v2/models/digits/infer"])
def test_pictures_that_would_take_too_much_memory_together_wait_for_room(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """With room for four, a request of six has one of them at a time, and one of one picture need not wait for all."""
    monkeypatch.setattr(model, "_ROOM", 35_000)
    gate = in_process()
    squares, working, most, ended = Served.square, 0, 0, []

    async def counted(served: Served, picture: bytes | images.Pixels) -> images.Pixels:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0.05)
        working -= 1
        return await squares(served, picture)

    monkeypatch.setattr(Served, "square", counted)

    async def client(count: int) -> int:
        sent = form(*[("a.png", blank(1))] * count) if path == "/predict" else binary([count, 1, 1, 3])
        status, _ = await ask(gate, path, *sent, asyncio.Event())
        ended.append(count)
        return status

    async def clients() -> list[int]:
        return await asyncio.gather(*map(client, [6, 6, 6, 6, 6, 1]))

    assert asyncio.run(clients()) == [200] * 6
    assert most == 4
    assert ended[0] == 1


def test_an_answer_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand classes of each of a thousand pictures would be 65 MB, and nobody is served while that is written."""
    assert predictions._SHARES == 100_000  # as export/README.md says
    monkeypatch.setattr(predictions, "_SHARES", 10)
    gate = in_process()

    async def client(count: int) -> tuple[int, bytes]:
        return await ask(gate, "/predict", *form(*[("a.png", blank(1))] * count), asyncio.Event())

    assert asyncio.run(client(2))[0] == 200
    status, body = asyncio.run(client(3))
    assert status == 413
    assert json.loads(body)["error"] == (
        "the answer would name 15 classes with their probabilities, and 10 are the most: "
        "send fewer pictures at a time, or ask for a smaller top_k"
    )


def test_so_has_an_answer_of_tensors_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand classes it would be 50 MB; in binary form it takes next to no time."""
    assert tensors.VALUES == 400_000  # as export/README.md says
    monkeypatch.setattr(tensors, "VALUES", 66)  # all outputs of two pictures
    gate = in_process()

    async def client(count: int, **words: Any) -> tuple[int, bytes]:
        return await ask(gate, "/v2/models/digits/infer", *binary([count, 1, 1, 3], **words), asyncio.Event())

    status, body = asyncio.run(client(3))
    assert status == 413
    assert json.loads(body)["error"] == (
        "the answer would have 99 values as JSON, and 66 are the most: ask for fewer outputs, "
        "or for binary ones by the parameter binary_data_output, or send fewer pictures at a time"
    )
    assert asyncio.run(client(2))[0] == 200
    assert asyncio.run(client(3, outputs=[{"name": "logits"}, {"name": "logits"}, {"name": "label"}]))[0] == 200
    assert asyncio.run(client(3, parameters={"binary_data_output": True}))[0] == 200


def test_a_picture_that_breaks_the_decoder_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not those of other clients that are decoded with it."""
    decode = images.decode

    def breaks(source: images.Source, limit: int = 0) -> images.Pixels:
        return decode(source, 1 // (source != b"evil") * limit)

    async def together() -> list[images.Pixels | BaseException]:
        served = Served(MODEL, MODEL.read_bytes(), SETTINGS, Metrics())
        pictures = (GOLDEN[0].encoded, b"evil", GOLDEN[1].encoded)
        return await asyncio.gather(*map(served.square, pictures), return_exceptions=True)

    monkeypatch.setattr(images, "decode", breaks)
    first, evil, last = asyncio.run(together())
    assert isinstance(evil, ZeroDivisionError)
    assert isinstance(first, np.ndarray)
    assert isinstance(last, np.ndarray)


def test_a_request_has_a_quarter_of_the_room_at_most() -> None:
    working, most = 0, 0

    async def work(_: int) -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        working -= 1

    asyncio.run(Room(8).each(work, range(9)))
    assert (most, working) == (2, 0)


def test_who_waits_for_room_is_let_in_in_order_and_leaves_it_to_others_when_gone() -> None:
    async def letters() -> str:
        room, go, begun = Room(8), asyncio.Event(), []

        async def work(letter: str) -> None:
            begun.append(letter)
            await go.wait()

        tasks = [asyncio.create_task(room.each(work, each)) for each in ("aa", "bb", "cc", "d", "ee", "f", "gg")]
        await asyncio.sleep(0.01)
        tasks[4].cancel()
        go.set()
        await asyncio.wait(tasks, timeout=5)
        return "".join(begun)

    assert asyncio.run(letters()) == "aabbccdfgg"


@pytest.mark.parametrize("path", ["/predict", "/v2/models/digits/infer"])
def test_work_for_a_client_that_has_gone_is_given_up(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Of 40 pictures one has been decoded when it goes, and one of another client is next."""
    decode, begun, go, sizes = images.decode, threading.Event(), threading.Event(), []

    def slow(source: images.Source, limit: int = 0) -> images.Pixels:
        begun.set()
        go.wait(10)
        pixels = decode(source, limit)
        sizes.append(len(pixels))
        return pixels

    monkeypatch.setattr(images, "decode", slow)
    monkeypatch.setattr(model, "usable_cpus", lambda: 1)
    monkeypatch.setattr(model, "_SECONDS", 0)
    gate = in_process()

    async def clients() -> list[int]:
        leave, stay = asyncio.Event(), asyncio.Event()
        sent = form(*[("a.png", blank(20))] * 40) if path == "/predict" else binary([40, 20, 20, 3])
        one = asyncio.create_task(ask(gate, path, *sent, leave))
        await asyncio.to_thread(begun.wait, 10)
        other = asyncio.create_task(ask(gate, "/predict", blank(30), {"content-type": "image/png"}, stay))
        leave.set()
        first, _ = await asyncio.wait_for(one, 5)
        go.set()
        second, _ = await asyncio.wait_for(other, 5)
        return [first, second]

    assert asyncio.run(clients()) == [499, 200]
    assert sizes == [20, 30]


def test_a_crowd_is_answered_or_told_to_come_back() -> None:
    """64 clients at a server that takes 8: every request gets 200, or 503 with Retry-After, and its own answer."""
    picture = {golden.label: golden.encoded for golden in GOLDEN}
    codes: list[int] = []
    with Server(MODEL, "--max-requests", 8) as server:

        def client(number: int) -> None:
            label, encoded = list(picture.items())[number % len(picture)]
            end = time.monotonic() + 5
            while time.monotonic() < end:
                headers = {"content-type": "image/png", "x-request-id": f"{number}.{len(codes)}"}
                status, answered, body = server.ask("POST", "/predict", encoded, headers)
                assert answered["x-request-id"] == headers["x-request-id"]
                if status == 200:
                    assert json.loads(body)["predictions"][0]["label"] == label
                else:
                    assert (status, answered["retry-after"]) == (503, "1")
                codes.append(status)

        with ThreadPoolExecutor(64) as pool:
            list(pool.map(client, range(64)))
        assert server.count(200) - 1 <= codes.count(200) <= server.count(200)
    assert codes.count(200) > 50
    assert codes.count(503) > 0


def test_it_ends_in_order() -> None:
    """SIGTERM with 32 in flight: not ready, all answered, exit code 0, nothing left behind.

    And one whose body is half sent, which is told to come back.
    """
    heavy = raw(blank(3000))
    with Server(MODEL) as server:
        clients = [server.connect() for _ in range(32)]
        for client in clients:
            client.sendall(heavy)
        half = server.connect()
        half.sendall(heavy[:-9])
        late = server.connect()
        end = time.monotonic() + 30
        while "requests_in_flight 34.0" not in server.ask("GET", "/metrics")[2].decode():
            assert server.process.poll() is None
            assert time.monotonic() < end, "some were answered before all had arrived"
        server.process.terminate()
        late.sendall(b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert answer(late) == (503, b'{"ready":false}')
        late.sendall(raw(GOLDEN[0].encoded))
        status, refused = answer(late)
        assert status == 503
        assert b"shutting down" in refused
        late.close()
        for client in clients:
            assert answer(client)[0] == 200
            client.close()
        with half:
            head, _, sentence = read_all(half).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in head
        assert json.loads(sentence)["error"].startswith("the server is shutting down")
        assert server.process.wait(timeout=15) == 0
        assert "Traceback" not in server.said
        session = str(server.process.pid)
        left = [
            path
            for path in Path("/proc").glob("[0-9]*/stat")
            if path.exists() and path.read_text().rpartition(")")[2].split()[3] == session
        ]
        assert not left


@pytest.mark.parametrize("begun", [False, True])
def test_who_is_cut_off_at_the_end_is_told_so_unless_an_answer_has_begun(begun: bool) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": []}

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if begun:
            await send(start)
        await asyncio.sleep(60)

    async def cut_off() -> list[int]:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        scope = {"type": "http", "method": "GET", "headers": [(b"host", b"localhost")], "state": {}}
        asked = asyncio.create_task(Gate(app, Metrics(), (), 1, 1)(scope, Mock(), send))
        await asyncio.sleep(0)
        asked.cancel()
        await asked
        return [message["status"] for message in said if "status" in message]

    assert asyncio.run(cut_off()) == [200 if begun else 503]


def test_it_ends_in_order_from_the_line_on_that_says_where_it_serves() -> None:
    words = [sys.executable, "-m", "cifar_onnx", "serve", str(MODEL), "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("serving ")
        process.terminate()
        assert (process.wait(15), process.stderr.read()) == (0, "")


@pytest.mark.parametrize("pieces", [1, 2])
def test_answers_that_are_on_their_way_come_whole_when_it_ends(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been made and is taken slowly, and a file whose rest is still to be read."""
    import uvicorn

    monkeypatch.setattr(command, "_NOTICE", 0.0)

    class App:
        draining, working = False, 0

        async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
            length = str(pieces * len(piece)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
            for left in reversed(range(pieces)):
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
                await asyncio.sleep(0.6 * (left > 0))

    async def end() -> int:
        config = uvicorn.Config(
            app, http=DeadlineProtocol, log_config=None, lifespan="off", timeout_graceful_shutdown=0
        )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = command.Server(config, app, "")
            running = asyncio.create_task(server.serve([listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname(), limit=1000)
            writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            server.handle_exit(signal.SIGTERM, None)
            await asyncio.sleep(0.4)
            assert not running.done()  # in a process of its own it would end now, and take with it what is not sent
            received = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            await running
        return len(received)

    app: Any = App()
    piece = bytes(20_000_000 if pieces == 1 else 1)
    assert asyncio.run(end()) == pieces * len(piece)


def told_to_end(draining: bool, working: int = 1) -> command.Server:
    """A server in this process that a signal has just reached, with so many requests in flight."""
    import uvicorn

    gate: Any = SimpleNamespace(draining=draining, working=working)
    server = command.Server(uvicorn.Config(gate, log_config=None), gate, "")
    server.handle_exit(signal.SIGTERM, None)
    return server


def test_a_second_signal_ends_it_at_once() -> None:
    first, second = told_to_end(draining=False), told_to_end(draining=True)
    assert not asyncio.run(first.on_tick(1))
    assert (first.should_exit, first.force_exit) == (False, False)
    assert (second.should_exit, second.force_exit) == (True, True)


def test_who_has_a_connection_open_is_told_that_it_ends_before_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a moment with no request, even where clients ask over and over again: they were reset."""
    server = told_to_end(draining=False, working=0)
    server.server_state.connections.add(Mock())
    assert not asyncio.run(server.on_tick(1))
    monkeypatch.setattr(command, "_NOTICE", 0.0)
    assert asyncio.run(server.on_tick(1))
    monkeypatch.undo()
    assert asyncio.run(told_to_end(draining=False, working=0).on_tick(1))  # at once, with nobody there


def test_requests_that_do_not_end_are_waited_for_so_long_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not asyncio.run(told_to_end(draining=False).on_tick(1))
    monkeypatch.setattr(command, "_GRACE", -1.0)
    assert asyncio.run(told_to_end(draining=False).on_tick(1))


def renamed(names: Callable[[str], str]) -> bytes:
    """The model with other names for its classes."""
    data, about = contract.read(MODEL)
    info = about.info | {"digest": contract.BLANK, "classes": [names(name) for name in about.classes], "golden": []}
    return with_info(data, info)


def test_a_model_is_replaced_while_it_is_asked(tmp_path: Path) -> None:
    """No request fails, each answer is its model's, and a broken file leaves the old model in place."""
    path = tmp_path / "digits.onnx"
    first, second = MODEL.read_bytes(), renamed(lambda name: f"digit {name}")
    digests = {contract.parse(data).digest: prefix for data, prefix in ((first, ""), (second, "digit "))}
    path.write_bytes(first)
    seen: list[str] = []
    stop = threading.Event()
    with Server(path) as server:

        def client() -> None:
            while not stop.is_set():
                status, answer = server.predict(GOLDEN[0].encoded)
                assert status == 200
                digest = answer["model"]["digest"]
                assert answer["predictions"][0]["label"] == digests[digest] + GOLDEN[0].label
                seen.append(digest)

        def put(data: bytes) -> None:
            """At once: the server may look at the file at any moment."""
            new = tmp_path / "new"
            new.write_bytes(data)
            os.replace(new, path)

        def until(digest: str) -> None:
            end = time.monotonic() + 30
            while server.get("/healthz")["model"]["digest"] != digest:
                assert time.monotonic() < end
                time.sleep(0.1)

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(client) for _ in range(4)]
            try:
                for data in (second, first, second):
                    put(data)
                    until(contract.parse(data).digest)
                put(first[: len(first) // 2])  # half copied
                time.sleep(2.5)
                path.unlink()
                time.sleep(1.5)
                assert server.get("/healthz")["model"]["digest"] == contract.parse(second).digest
                put(first)
                until(contract.parse(first).digest)
            finally:
                stop.set()
            for each in clients:
                each.result()
        said = server.said
    assert set(seen) == set(digests)
    assert said.count("now serving") == 4
    assert said.count("still serving") == 1


class Unread(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("trouble", [InputError("no"), OSError("gone"), MemoryError(), RuntimeError("no thread")])
def test_whatever_is_wrong_with_a_new_file_the_next_is_looked_at(
    trouble: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digits.onnx"
    path.write_bytes(MODEL.read_bytes())
    file = model.ModelFile(path, SETTINGS, Metrics())
    tried: list[int] = []

    def fails(*_: object) -> None:
        tried.append(1)
        raise trouble

    async def watched() -> None:
        watch = asyncio.create_task(file.watch())
        for count in (1, 2):
            os.utime(path, (count, count))
            while len(tried) < count:
                assert not watch.done()
                await asyncio.sleep(0.01)
        watch.cancel()

    monkeypatch.setattr(model, "_LOOK", 0.01)
    monkeypatch.setattr(probe, "run", fails)
    monkeypatch.setattr(sys, "stderr", Unread())
    asyncio.run(asyncio.wait_for(watched(), 10))


@pytest.mark.parametrize("loaded", [False, True], ids=["tried", "loaded"])
def test_the_end_waits_for_a_model_that_is_loaded_but_not_for_one_that_is_tried(
    loaded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is cut off inside onnxruntime aborts the process; of a trial another one is left behind."""
    path = tmp_path / "digits.onnx"
    path.write_bytes(MODEL.read_bytes())
    file = model.ModelFile(path, SETTINGS, Metrics())
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        go.wait(1 if loaded else 30)
        done.set()

    async def told_to_end() -> None:
        watch = asyncio.create_task(file.watch())
        os.utime(path, (1, 1))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        watch.cancel()

    monkeypatch.setattr(model, "_LOOK", 0.01)
    monkeypatch.setattr(probe, "run", (lambda *_: None) if loaded else slow)
    monkeypatch.setattr(model, "Served", slow)
    asyncio.run(asyncio.wait_for(told_to_end(), 10))
    assert done.is_set() is loaded
    go.set()


@pytest.mark.slow
def test_memory_is_flat_over_a_soak() -> None:
    """20,000 requests, good, bad and cut off: at most 1 MB for each 10,000 after the first 5,000."""
    memory = []
    with Server(MODEL) as server:
        with ThreadPoolExecutor(16) as pool:  # so that no thread of the server begins later, and takes memory then
            assert set(pool.map(lambda _: server.predict(GOLDEN[0].encoded)[0], range(500))) == {200}
        generator = random.Random(0)
        for number in range(20_000):
            kind = generator.randrange(4)
            if kind == 0:
                with server.connect() as connection:
                    connection.sendall(malformed(generator))
            elif kind == 1:
                assert server.predict(b"no picture")[0] == 422
            else:
                assert server.predict(GOLDEN[number % len(GOLDEN)].encoded)[0] == 200
            if number >= 5000 and number % 500 == 0:
                memory.append((number / 10_000, server.memory))
        files = server.files
        assert files < 60
    x, y = np.array(memory).T
    assert np.polyfit(x, y, 1)[0] <= 1
