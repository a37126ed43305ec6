"""What the server answers."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import ANY, Mock

import numpy as np
import pytest
from handmade import colours
from served import GOLDEN, MODEL, Server, form, in_process

import cifar_onnx
from cifar_onnx import Classifier, InputError, contract, images
from cifar_onnx.__main__ import main
from cifar_onnx.serving.app import build
from cifar_onnx.serving.metrics import Metrics
from cifar_onnx.serving.model import Served, Settings


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(MODEL, "--allow-host", "Photos.Example.", "--allow-host", "m\u00fcller.example") as running:
        yield running


def noise(height: int, width: int, seed: int = 0) -> images.Pixels:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


class TestPredict:
    def test_the_answer_is_that_of_the_classifier(self, server: Server) -> None:
        classifier = Classifier(MODEL)
        for golden in GOLDEN:
            expected = classifier(golden.encoded).as_dict(3)
            status, answer = server.predict(golden.encoded, "?top_k=3")
            assert status == 200
            (found,) = answer["predictions"]
            assert found.keys() == {"name", *expected}
            assert found["probability"] == pytest.approx(expected["probability"], abs=1e-5)
            assert [each["label"] for each in found["top"]] == [each["label"] for each in expected["top"]]
            assert (found["label"], found["labels"], found["unknown"]) == (
                *(expected["label"], expected["labels"], expected["unknown"]),
            )
            assert answer["model"] == {"name": "digits", "digest": classifier.contract.digest}
            assert len(answer["request_id"]) == 32
        assert server.predict(images.encode_png(noise(32, 32)))[1]["predictions"][0]["unknown"]

    def test_many_pictures_of_a_form_are_answered_in_order_and_a_bad_one_is_a_row(self, server: Server) -> None:
        files = [(f"{n}.png", golden.encoded) for n, golden in enumerate(GOLDEN)]
        files.insert(2, ("notes <b>.txt", b"no picture"))
        status, _, body = server.ask("POST", "/predict", *form(*files))
        rows = json.loads(body)["predictions"]
        assert status == 200
        assert [row["name"] for row in rows] == [name for name, _ in files]
        assert rows.pop(2)["error"].startswith("not a picture in one of the formats")
        assert [row["label"] for row in rows] == [golden.label for golden in GOLDEN]

    def test_headers_of_parts_may_be_written_as_browsers_write_them(self, server: Server) -> None:
        body, kind = form(("a.png", GOLDEN[0].encoded))
        body = body.replace(b"content-disposition", b"Content-Disposition")
        status, _, answer = server.ask("POST", "/predict", body, kind)
        assert (status, json.loads(answer)["predictions"][0]["name"]) == (200, "a.png")

    def test_a_picture_may_be_sent_as_bytes_of_no_kind(self, server: Server) -> None:
        headers = {"content-type": "application/octet-stream"}
        assert server.ask("POST", "/predict", GOLDEN[0].encoded, headers)[0] == 200

    def test_alone_and_among_others_a_picture_gets_the_same_answer(self, server: Server) -> None:
        pictures = [images.encode_png(noise(8 + n, 40 - n, n)) for n in range(24)]

        def shares(picture: bytes) -> list[float]:
            (row,) = server.predict(picture, "?top_k=10")[1]["predictions"]
            return [share for _, share in sorted((each["label"], each["probability"]) for each in row["top"])]

        def runs() -> np.ndarray:
            """How many runs of the net there were, and how many of them with one picture."""
            counters = server.ask("GET", "/metrics")[2].decode()
            names = ("count", 'bucket{le="1.0"}')
            return np.array([float(counters.split(f"\ncifar_onnx_batch_size_{name} ")[1].split()[0]) for name in names])

        alone = np.array([shares(picture) for picture in pictures])
        before = runs()
        with ThreadPoolExecutor(24) as pool:
            together = np.array(list(pool.map(shares, pictures * 4)))
        assert np.abs(together - np.tile(alone, (4, 1))).max() <= 1e-5
        all_of_them, of_one = runs() - before
        assert all_of_them > of_one  # some did run together

    @pytest.mark.parametrize(
        ("body", "kind", "status", "words"),
        [
            (b"", "image/png", 422, "an empty file"),
            (b"hello", "image/jpeg", 422, "not a picture"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/png", 422, "not a picture"),
            (b"II*\x00\x08\x00\x00\x00\x00\x00", "image/tiff", 422, "not a picture"),
            (b"{}", "application/json", 415, "multipart/form-data in the field 'files'"),
            (b"x", "", 415, "or one as the body with its Content-Type, such as image/jpeg"),
            (b"--b\r\n\r\n--b--", "multipart/form-data; boundary=b", 400, "cut off"),
            (b"--b\r\na: b\r\n\r\n1\r\n--b--\r\n", "multipart/form-data; boundary=b", 400, "no file in the field"),
            (b"--b\r\n\r\n\r\n" * 1001 + b"--b--\r\n", "multipart/form-data; boundary=b", 400, "than 1,000 parts"),
            (b"--b\r\n\r\n" + b"\r\n--bc" * 1000 + b"\r\n--b--", "multipart/form-data; boundary=b", 400, "1,000 parts"),
            (b"--b\r\n\r\nx\r\n--b" + b" " * 100, "multipart/form-data; boundary=b", 400, "hundred blanks"),
            (b"no form", "multipart/form-data; boundary=b", 400, "cannot be read"),
            (b"no form", "multipart/form-data", 400, "boundary"),
        ],
    )
    def test_what_is_no_picture_gets_a_reason(
        self, server: Server, body: bytes, kind: str, status: int, words: str
    ) -> None:
        found, headers, answer = server.ask("POST", "/predict", body, {"content-type": kind})
        assert (found, headers["content-type"]) == (status, "application/json")
        assert words in json.loads(answer)["error"]
        assert "/" not in json.loads(answer)["error"].replace("multipart/form-data", "").replace("image/jpeg", "")

    def test_the_query_is_checked(self, server: Server) -> None:
        for query in ("?top_k=0", "?top_k=x", "?map=perhaps"):
            status, answer = server.predict(GOLDEN[0].encoded, query)
            assert status == 400
            assert answer["error"].startswith(query[1:].partition("=")[0])

    @pytest.mark.parametrize("number", ["1001", "9" * 5000, "%D9%A3", "-1", "1.0", ""])
    def test_a_number_of_classes_is_a_small_whole_one(self, server: Server, number: str) -> None:
        status, answer = server.predict(GOLDEN[0].encoded, f"?top_k={number}")
        assert (status, answer["error"]) == (400, "top_k: it must be a whole number from 1 to 1000")

    def test_requests_have_ids(self, server: Server) -> None:
        headers = {"content-type": "image/png", "x-request-id": "order-66"}
        _, answered, body = server.ask("POST", "/predict", GOLDEN[0].encoded, headers)
        assert answered["x-request-id"] == json.loads(body)["request_id"] == "order-66"
        headers["x-request-id"] = "no <b>id</b>"
        assert "<" not in server.ask("POST", "/predict", GOLDEN[0].encoded, headers)[1]["x-request-id"]


class TestOpenInferenceProtocol:
    def test_server_and_model_describe_themselves(self, server: Server) -> None:
        about = {"name": "cifar-onnx", "version": cifar_onnx.__version__, "extensions": ["binary_tensor_data"]}
        assert server.get("/v2") == server.get("/v2/") == about
        assert server.get("/v2/health/live") == {"live": True}
        assert server.get("/v2/health/ready") == {"ready": True}
        about = server.get("/v2/models/digits")
        assert about["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
        assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]} in about["outputs"]
        (version,) = about["versions"]
        assert server.get(f"/v2/models/digits/versions/{version}") == about
        assert server.get("/v2/models/digits/ready") == {"name": "digits", "ready": True}
        for path in ("/v2/models/cats", "/v2/models/digits/versions/9", "/v2/models/cats/ready", "/v2/else"):
            status, _, body = server.ask("GET", path)
            assert status == 404
            assert "there is no" in json.loads(body)["error"]

    @pytest.mark.parametrize("form", ["flat", "nested", "binary"])
    def test_infer_is_the_classifier_on_pixels(self, server: Server, form: str) -> None:
        batch = np.stack([noise(20, 30, n) for n in range(3)] + [np.zeros((20, 30, 3), np.uint8)])
        tensor: dict[str, object] = {"name": "image", "datatype": "UINT8", "shape": list(batch.shape)}
        data = b""
        if form == "binary":
            tensor["parameters"], data = {"binary_data_size": batch.nbytes}, batch.tobytes()
        else:
            tensor["data"] = batch.tolist() if form == "nested" else batch.ravel().tolist()
        head = json.dumps({"id": "seven", "inputs": [tensor]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))} if data else {}
        status, _, body = server.ask("POST", "/v2/models/digits/infer", head + data, headers)
        answer = json.loads(body)
        assert status == 200, answer
        assert (answer["model_name"], answer["id"]) == ("digits", "seven")
        assert answer["parameters"]["digest"].startswith(answer["model_version"])
        outputs = {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in answer["outputs"]}
        classifier = Classifier(MODEL)
        logits, probabilities, familiarity = classifier.run(batch)
        predictions = classifier.predictions(probabilities, familiarity)
        assert np.allclose(outputs["logits"], logits, atol=1e-4)
        assert np.allclose(outputs["probabilities"], probabilities, atol=1e-5)
        assert np.allclose(outputs["familiarity"], familiarity, rtol=1e-4)
        assert outputs["label"].tolist() == [each.label for each in predictions]
        assert outputs["unknown"].tolist() == [each.unknown for each in predictions]
        sets = [tuple(np.array(classifier.classes)[row]) for row in outputs["in_set"]]
        assert list(map(set, sets)) == [set(each.labels) for each in predictions]

    def test_outputs_are_chosen_and_come_in_binary_form(self, server: Server) -> None:
        batch = np.stack([images.decode(GOLDEN[0].encoded)] * 2)
        message = {
            "inputs": [
                {"name": "image", "datatype": "UINT8", "shape": list(batch.shape), "data": batch.ravel().tolist()}
            ],
            "outputs": [
                {"name": "label", "parameters": {"binary_data": True}},
                {"name": "probabilities", "parameters": {"binary_data": True}},
                {"name": "unknown"},
            ],
        }
        status, headers, body = server.ask("POST", "/v2/models/digits/infer", json.dumps(message).encode())
        assert status == 200
        length = int(headers["inference-header-content-length"])
        label, probabilities, unknown = json.loads(body[:length])["outputs"]
        data = body[length:]
        size = label["parameters"]["binary_data_size"]
        assert data[:size] == 2 * (b"\1\0\0\0" + GOLDEN[0].label.encode())
        found = np.frombuffer(data[size:], "<f4").reshape(probabilities["shape"])
        assert np.allclose(found, [GOLDEN[0].probabilities] * 2, atol=1e-4)
        assert unknown["data"] == [False, False]

    def test_all_outputs_may_be_asked_for_in_binary_form_at_once(self, server: Server) -> None:
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
        message = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        status, headers, body = server.ask("POST", "/v2/models/digits/infer", json.dumps(message).encode())
        assert status == 200
        outputs = json.loads(body[: int(headers["inference-header-content-length"])])["outputs"]
        assert len(outputs) == 6
        assert all("data" not in each and each["parameters"]["binary_data_size"] for each in outputs)

    @pytest.mark.parametrize(
        ("message", "words"),
        [
            (b"[", "not JSON"),
            (b"[" * 20_000, "not JSON"),
            (b"null", "must be a JSON object"),
            (b'{"id": 7}', "must be a JSON object"),
            (b"{}", "one tensor"),
            ({"inputs": []}, "one tensor"),
            ({"inputs": [None]}, "one tensor"),
            ({"name": "picture"}, "the name 'image'"),
            ({"datatype": "FP32"}, "the datatype 'UINT8'"),
            ({"shape": [1, 2, 2, 4]}, "[B, H, W, 3]"),
            ({"shape": [0, 2, 2, 3]}, "[B, H, W, 3]"),
            ({"shape": [1, 2, True, 3]}, "[B, H, W, 3]"),
            ({"shape": [2**40, 2**40, 2**40, 3]}, "[B, H, W, 3]"),
            ({"shape": [1001, 1, 1, 3]}, "are the most"),
            ({"shape": [1, 70_000, 1, 3]}, "are the most"),
            ({"shape": [1, 5001, 5000, 3]}, "are the most"),
            ({"shape": [1, 1, 1, 3]}, "3 whole numbers"),
            ({"data": [0.5] * 12}, "12 whole numbers"),
            ({"data": [256] * 12}, "12 whole numbers"),
            ({"data": [10**30] * 12}, "12 whole numbers"),
            ({"data": ["x"] * 12}, "12 whole numbers"),
            ({"data": [[1], [1, 2]]}, "12 whole numbers"),
            ({"data": [[0] * 4, [0] * 8]}, "12 whole numbers"),
            ({"data": [[0] * 6, *[0] * 6]}, "12 whole numbers"),
            ({"data": [[]] * 12}, "12 whole numbers"),
            ({"data": [True] * 12}, "12 whole numbers"),
            ({"data": [-1] * 12}, "12 whole numbers"),
            ({"data": {}}, "12 whole numbers"),
            ({"parameters": {"binary_data_size": 12}}, "binary_data_size"),
            ({"outputs": [{"name": "boxes"}]}, "an output is unknown"),
            ({"outputs": [{"name": []}]}, "an output is unknown"),
            ({"outputs": [{"name": {}}]}, "an output is unknown"),
            ({"outputs": 7}, "'outputs' a list"),
        ],
    )
    def test_what_is_no_request_gets_a_reason(self, server: Server, message: object, words: str) -> None:
        if isinstance(message, dict) and "inputs" not in message:
            outputs = {"outputs": message.pop("outputs")} if "outputs" in message else {}
            tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [0] * 12} | message
            message = {"inputs": [tensor], **outputs}
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        status, _, answer = server.ask("POST", "/v2/models/digits/infer", body)
        assert status == (413 if "most" in words else 400)
        assert words in json.loads(answer)["error"]

    def test_the_length_of_its_json_is_no_more_than_that_of_the_body(self, server: Server) -> None:
        headers = {"Inference-Header-Content-Length": "9" * 30}
        status, _, answer = server.ask("POST", "/v2/models/digits/infer", b"{}", headers)
        assert status == 400
        assert "it must be the number of bytes of the JSON" in json.loads(answer)["error"]


class TestAround:
    @pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6")
    def test_at_all_addresses_of_ipv6_it_listens_at_those_of_ipv4_too(self) -> None:
        from cifar_onnx.serving import command

        with command._listen("::", 0) as listener:
            socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 5).close()

    def test_health_names_the_model(self, server: Server) -> None:
        assert server.get("/healthz") == {
            "status": "ok",
            "model": {"name": "digits", "digest": contract.read(MODEL)[1].digest},
        }

    def test_counters_are_prometheus(self, server: Server) -> None:
        before = server.count(200)
        server.predict(GOLDEN[0].encoded)
        status, headers, body = server.ask("GET", "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        text = body.decode()
        assert server.count(200) >= before + 2
        digest = contract.read(MODEL)[1].digest
        for words in (
            f'model_info{{digest="{digest}",name="digits"}} 1.0',
            "request_seconds_bucket{",
            "batch_size_bucket{",
            "requests_in_flight 1.0",
        ):
            assert f"\ncifar_onnx_{words}" in text

    def test_the_contract_comes_without_its_samples(self, server: Server) -> None:
        about = server.get("/contract")
        assert about["classes"] == list(map(str, range(10)))
        assert about["name"] == "digits"
        assert "golden" not in about

    def test_only_known_names_are_answered(self, server: Server) -> None:
        names = (
            "localhost",
            "LOCALHOST:80",
            "localhost.:80",
            "photos.example",
            "PHOTOS.example:80",
            "xn--mller-kva.example",
        )
        known = (*names, socket.gethostname(), "127.0.0.1", "[::1]:8000", "10.0.0.7:1")
        strange = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "a b", "[::1", "1")
        for host in (*known, *strange):
            status, _, body = server.ask("GET", "/healthz", headers={"host": host})
            assert status == (200 if host in known else 421), host
        assert "--allow-host" in json.loads(body)["error"]

    def test_nothing_is_shared_with_other_pages(self, server: Server) -> None:
        for method in ("GET", "OPTIONS", "POST"):
            headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
            answered = server.ask(method, "/predict", None, headers)[1]
            assert not [name for name in answered if name.startswith("access-control")]
            assert answered["x-content-type-options"] == "nosniff"
            assert answered["cross-origin-resource-policy"] == "same-origin"
            assert "default-src 'none'" in answered["content-security-policy"]
            assert "server" not in answered

    def test_there_are_no_ways_to_load_or_stop_anything(self, server: Server) -> None:
        paths = server.get("/openapi.json")["paths"]
        assert {path.split("/")[1] for path in paths} == {"predict", "healthz", "metrics", "contract", "v2"}
        parameters = {
            each["name"]
            for operations in paths.values()
            for one in operations.values()
            for each in one.get("parameters", [])
        }
        assert parameters == {"top_k", "map", "name", "version"}
        for path in ("/v2/repository/index", "/v2/models/digits/load", "/shutdown", "/v2/systemsharedmemory/status"):
            assert server.ask("POST", path)[0] == 404

    def test_it_listens_on_this_machine_only_unless_told(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from cifar_onnx.serving import command

        def stop(self: Any, sockets: list[Any]) -> None:
            (listener,) = sockets
            said.append(listener.getsockname()[0])
            listener.close()
            assert command._GRACE + self.config.timeout_graceful_shutdown <= 9  # docker stop kills after 10

        said: list[str] = []
        monkeypatch.setattr(command.Server, "run", stop)
        for words in ([], ["--host", "0.0.0.0"]):
            assert main(["serve", str(MODEL), "--port", "0", *words]) == 0
        assert said == ["127.0.0.1", "0.0.0.0"]

    @pytest.mark.parametrize(
        ("words", "settings", "body", "requests"),
        [
            ("", Settings(32, 25_000_000, None), 20_000_000, 256),
            (
                "--max-batch 5 --max-pixels 2.5 --threads 3 --provider cpu --max-body 1.5 --max-requests 7",
                Settings(5, 2_500_000, 3, ["cpu"]),
                1_500_000,
                7,
            ),
        ],
        ids=["by default", "typed"],
    )
    def test_its_limits_are_those_that_were_typed(
        self, words: str, settings: Settings, body: int, requests: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from cifar_onnx.serving import command

        made = Mock(spec=build, side_effect=InputError("seen"))
        monkeypatch.setattr(command, "build", made)
        assert main(["serve", str(MODEL), *words.split()]) == 2
        made.assert_called_once_with(MODEL, settings, ANY, body=body, capacity=requests, runtime=None)

    def test_so_many_pictures_run_together_at_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        served = Served(MODEL, MODEL.read_bytes(), Settings(2, 10**6, 1), Metrics())
        run, sizes = Classifier.run, list[int]()

        def noted(self: Classifier, batch: images.Pixels) -> Any:
            sizes.append(len(batch))
            return run(self, batch)

        async def together() -> None:
            await asyncio.gather(*(served.answer(noise(32, 32)) for _ in range(6)))

        monkeypatch.setattr(Classifier, "run", noted)
        asyncio.run(together())
        assert sizes == [2, 2, 2]

    def test_its_address_is_said_as_it_is_typed_into_a_browser(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import uvicorn

        from cifar_onnx.serving import command

        class Listener:
            def getsockname(self) -> tuple[str, int]:
                return "::1", 8000

        async def started(*_: object) -> None:
            assert "a page" not in capsys.readouterr().err

        monkeypatch.setattr(command, "_listen", lambda *_: Listener())
        monkeypatch.setattr(uvicorn.Server, "startup", started)
        monkeypatch.setattr(command.Server, "run", lambda self, sockets: asyncio.run(self.startup(sockets)))
        assert main(["serve", str(MODEL), "--host", "::1"]) == 0
        assert "at http://[::1]:8000: a page" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("method", "path", "headers", "expected", "words"),
        [
            ("GET", "/predict", {}, 405, "/predict takes POST, not GET"),
            ("PUT", "/page.mjs", {}, 405, "/page.mjs takes GET or HEAD, not PUT"),
            ("GET", "/v2/x", {}, 404, "there is no /v2/x"),
            ("POST", "/predict/", {}, 404, "there is no /predict/"),
            ("POST", "/predict", {"content-encoding": "gzip"}, 415, "without Content-Encoding"),
            ("POST", "/predict", {"upgrade": "h2c", "connection": "upgrade", "content-length": "0"}, 501, "HTTP/1.1"),
        ],
    )
    def test_every_error_is_a_sentence(
        self, server: Server, method: str, path: str, headers: dict[str, str], expected: int, words: str
    ) -> None:
        status, answered, body = server.ask(method, path, None, headers)
        assert (status, answered["content-type"]) == (expected, "application/json")
        assert words in json.loads(body)["error"]

    @pytest.mark.parametrize("asked", ["bytes=0-5", "bytes=99999999-", "bytes=x", "x"])
    def test_files_come_whole(self, server: Server, asked: str) -> None:
        status, headers, body = server.ask("GET", "/page.mjs", headers={"range": asked})
        assert (status, len(body)) == (200, int(headers["content-length"]))

    @pytest.mark.parametrize("known", ["{}", "W/{}", '"a", W/"b",{}', "*"])
    def test_what_a_browser_has_it_is_not_sent_again(self, server: Server, known: str) -> None:
        """Also where a proxy has weakened the mark or knows several (RFC 9110, 13.1.2)."""
        mark = server.ask("GET", "/page.mjs")[1]["etag"]
        status, _, body = server.ask("GET", "/page.mjs", headers={"if-none-match": known.format(mark)})
        assert (status, body) == (304, b"")
        assert server.ask("GET", "/page.mjs", headers={"if-none-match": '"a", W/"b"'})[0] == 200

    def test_monitors_may_ask_for_the_head_alone(self, server: Server) -> None:
        """By `wget --spider`, for one."""
        for path in ("/healthz", "/v2/health/ready", "/v2/models/digits", "/contract", "/", "/page.mjs"):
            with server.connect() as connection:
                head = f"HEAD {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
                connection.sendall(head.encode())
                with connection.makefile("rb") as said:
                    answered, _, body = said.read().partition(b"\r\n\r\n")
            assert (answered[:15], body) == (b"HTTP/1.1 200 OK", b""), path
            assert b"content-length: %d\r\n" % len(server.ask("GET", path)[2]) in answered

    def test_half_a_letter_breaks_nothing(self, server: Server) -> None:
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
        body = json.dumps({"id": "\ud800", "inputs": [tensor]}).encode()
        status, _, answer = server.ask("POST", "/v2/models/digits/infer", body)
        assert (status, json.loads(answer)["id"]) == (200, "?")

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({"sec-fetch-site": "cross-site"}, 403),
            ({"sec-fetch-site": "cross-site", "origin": "http://localhost:8000"}, 403),
            ({"sec-fetch-site": "same-origin", "origin": "https://behind.a.proxy"}, 200),
            ({"origin": "http://elsewhere.example"}, 403),  # as browsers say it over plain HTTP
            ({"origin": "null"}, 403),
            ({"origin": "http://localhost:8000"}, 200),
            ({"origin": "http://10.0.0.7:8000", "host": "10.0.0.7:8000"}, 200),  # --host 0.0.0.0 names no address
            ({"origin": "http://10.0.0.8:8000", "host": "10.0.0.7:8000"}, 403),
            ({}, 200),
        ],
    )
    def test_pages_elsewhere_cannot_send_pictures(self, server: Server, headers: dict[str, str], expected: int) -> None:
        headers = {"content-type": "image/png", **headers}
        status, _, body = server.ask("POST", "/predict", GOLDEN[0].encoded, headers)
        assert status == expected
        assert expected == 200 or "pages of other sites are refused: let the page's own" in json.loads(body)["error"]

    def test_requests_are_logged_where_asked(self) -> None:
        with Server(MODEL, "--access-log") as server:
            server.ask("GET", "/healthz?a=%0Ab")
            server.ask("POST", "/predict", b"--c", {"content-type": "multipart/form-data; boundary=b"})
            said = server.said
        first, second = [line for line in said.splitlines() if "a page for people" not in line]
        assert '"GET /healthz?a=%0Ab HTTP/1.1" 200' in first
        assert '"POST /predict HTTP/1.1" 400' in second

    def test_mistakes_are_one_sentence(
        self, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(MODEL.read_bytes()[:-9])
        cases = [
            (
                [str(MODEL), "--port", str(server.port)],
                f"error: cannot listen on 127.0.0.1, port {server.port} (Address already in use): name others",
            ),
            ([str(MODEL), "--host", "no.such.host.invalid"], "error: cannot listen on no.such.host.invalid"),
            ([str(MODEL), "--provider", "cuda13"], "error: unknown execution provider 'cuda13': onnxruntime knows"),
            ([str(MODEL), "--host", "x" * 64], "no such name"),  # which is too long to be looked up
            ([str(tmp_path / "none.onnx")], "none.onnx: cannot be read"),
            ([str(broken)], "broken.onnx: "),
        ]
        for words, said in cases:
            assert main(["serve", *words]) == 2
            assert said in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["example.com:8000", "https://a.b", "*.a.b", "a..b", ""])
    def test_what_is_no_name_of_a_host_is_refused(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["serve", "nowhere.onnx", "--allow-host", name])
        assert f"{name!r} is not the name of a host: give it without scheme and port" in capsys.readouterr().err

    def test_a_port_lies_below_65536(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr("cifar_onnx.serving.command.serve", lambda _: 0)
        with pytest.raises(SystemExit, match="2"):
            main(["serve", str(MODEL), "--port", "65536"])
        assert "'65536' is not a whole number from 0 to 65535" in capsys.readouterr().err

    def test_it_imports_no_torch_and_serving_is_imported_by_serve_only(self) -> None:
        code = (
            "import sys, cifar_onnx.__main__, cifar_onnx; assert 'fastapi' not in sys.modules;"
            "import cifar_onnx.serving.command; assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_without_onnxruntime_web_the_page_asks_the_server_only(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from cifar_onnx import InputError, site
        from cifar_onnx.serving import page

        monkeypatch.setattr(site, "JS", tmp_path)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(site, "index", lambda runs: runs)
        routes = page.router(None, None).routes
        (index,) = (route.endpoint for route in routes if route.path == "/")
        assert asyncio.run(index(None)).body == b"server-only"
        assert not [route.path for route in routes if "ort" in route.path or "onnx" in route.path]
        with pytest.raises(InputError, match="name the folder dist of onnxruntime-web"):
            page.router(None, str(tmp_path))

    @pytest.mark.slow
    def test_schemathesis_finds_nothing(self, server: Server, tmp_path: Path) -> None:
        pytest.importorskip("schemathesis")
        words = [
            *(Path(sys.executable).with_name("schemathesis"), "run", f"http://127.0.0.1:{server.port}/openapi.json"),
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),  # not every file is a picture
            *("--max-examples", 15, "--seed", 1, "--no-color", "--generation-database", "none"),
        ]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stdout


def test_maps_are_given_by_a_model_that_has_them(tmp_path: Path) -> None:
    path = tmp_path / "colours.onnx"
    path.write_bytes(colours())
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[2, 5, 1] = 200
    with Server(path) as server:
        plain, mapped = (
            server.predict(images.encode_png(picture), query)[1]["predictions"][0] for query in ("", "?map=true")
        )
    assert "map" not in plain
    heat = mapped.pop("map")
    assert mapped == plain
    assert plain["label"] == "green"
    assert (heat["height"], heat["width"]) == (8, 8)
    assert np.argmax(heat["values"]) == 2 * 8 + 5


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_model_whose_name_is_no_text_is_served(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"m\xff.onnx")
    path.write_bytes(MODEL.read_bytes())
    with Server(path) as server:
        status, answer = server.predict(GOLDEN[0].encoded)
        assert (status, answer["model"]["name"]) == (200, "m\\udcff")
        assert server.ask("GET", "/healthz")[0] == server.ask("GET", "/")[0] == server.ask("GET", "/metrics")[0] == 200


@pytest.mark.parametrize("operations", [["Neg", "Sqrt"], ["Reciprocal"], ["Log"]], ids="".join)
def test_a_net_that_overflows_is_answered_in_json(tmp_path: Path, operations: list[str]) -> None:
    """JSON has neither NaN nor infinities."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colours(*operations))
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[2, 5, 1] = 200
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": picture.ravel().tolist()}
    with Server(path) as server:
        status, answer = server.predict(images.encode_png(picture), "?map=true")
        assert status == 200
        (found,) = answer["predictions"]
        assert found["probability"] is None
        assert [share["probability"] for share in found["top"]] == [None] * 3
        assert set(found["map"]["values"]) <= {0, 1}
        status, _, body = server.ask("POST", "/v2/models/colours/infer", json.dumps({"inputs": [tensor]}).encode())
    assert status == 200
    outputs = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
    assert outputs["probabilities"] == [None] * 3
    assert outputs["familiarity"] == [None]
    assert outputs["unknown"] == [found["unknown"]]


def test_a_failure_of_the_servers_own_is_answered_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    from cifar_onnx.serving.model import ModelFile

    gate = in_process()

    def broken(_file: ModelFile) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ModelFile, "current", property(broken, lambda *_: None), raising=False)
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    request = {"type": "http", "method": "GET", "path": "/contract", "query_string": b"", "root_path": ""}
    scope = request | {"headers": [(b"host", b"localhost")], "state": {}}
    with pytest.raises(ZeroDivisionError):  # for the server's log
        asyncio.run(gate(scope, receive, send))
    start, body = said
    assert start["status"] == 500
    assert b"x-request-id" in dict(start["headers"])
    assert body["body"] == b'{"error":"the server has failed, and its log says why"}'
