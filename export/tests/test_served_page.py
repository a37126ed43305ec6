"""The page of a running server, in Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import with_info
from served import GOLDEN, MODEL, Server

from cifar_onnx import Classifier, contract, images

SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, under names that a page must not run."""
    data, about = contract.read(MODEL)
    classes = [f"{name} {SCRIPT}" for name in about.classes]
    path = tmp_path_factory.mktemp("model") / "names.onnx"
    path.write_bytes(with_info(data, about.info | {"digest": contract.BLANK, "classes": classes, "golden": []}))
    return path


@pytest.fixture(scope="module")
def server(model: Path, runtime: Path) -> Iterator[Server]:
    with Server(model, "--runtime", runtime) as running:
        yield running


def drop(page: Any, name: str, data: bytes, kind: str = "image/png") -> None:
    """A file from elsewhere, let go over the page."""
    page.evaluate(
        """([name, data, type]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(data)], name, { type }));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        [name, list(data), kind],
    )


def test_a_dropped_photo_gets_the_same_answer_from_server_and_browser(server: Server, model: Path, page: Any) -> None:
    """Pictures that need a resize, a rotation and a background; label and shares of both are the classifier's."""
    noise = np.random.default_rng(0).integers(256, size=(90, 47, 3), dtype=np.uint8)
    pictures = [*(golden.encoded for golden in GOLDEN if golden.name != "JPEG"), images.encode_png(noise)]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    page.goto(f"http://127.0.0.1:{server.port}/")
    expected = [prediction.as_dict() for prediction in Classifier(model)(pictures)]
    for place in ("on the server", "in this browser"):
        if place == "in this browser":
            page.get_by_role("switch", name="Run in this browser").check()
            page.get_by_text("Photos are now classified in this browser").wait_for(state="attached", timeout=60_000)
            asked.clear()
        answers = page.evaluate(
            """async ([pictures, place]) => {
              const { connect } = await import(place === "on the server" ? "./server.mjs" : "./browser.mjs");
              const { classify } = await connect(() => {});
              const files = pictures.map((data) => new File([Uint8Array.from(data)], "a.png", { type: "image/png" }));
              return Promise.all(files.map((file) => classify(file)));
            }""",
            [list(map(list, pictures)), place],
        )
        for answer, right in zip(answers, expected, strict=True):
            assert [answer[key] for key in ("label", "labels", "unknown")] == [
                right[key] for key in ("label", "labels", "unknown")
            ]
            assert answer["probability"] == pytest.approx(right["probability"], abs=1e-4)
        asked_before = asked.count("POST")
        drop(page, f"{SCRIPT}.png", pictures[0])
        card = page.locator(".card").first
        card.locator(".time").get_by_text(place).wait_for(timeout=30_000)
        assert card.locator("h3").inner_text() == expected[0]["label"]
        assert card.locator(".file").inner_text() == f"{SCRIPT}.png"
        share = card.locator(".share").first.inner_text()
        assert float(share.removesuffix(" %")) == pytest.approx(100 * expected[0]["probability"], abs=0.05)
        assert asked.count("POST") == asked_before + (place == "on the server")


def test_what_cannot_be_read_is_said(server: Server, page: Any, troubles: list[str]) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/")
    with page.expect_response("**/predict*"):
        drop(page, "notes.txt", b"hello", "text/plain")
    card = page.locator(".card.failed")
    card.wait_for()
    assert "Not a picture in one of the formats" in card.inner_text()
    assert len(troubles) == 1
    assert "422" in troubles.pop()  # Chromium itself tells of it


def test_the_documentation_needs_nothing_from_elsewhere(server: Server, page: Any) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/docs")
    page.get_by_text("/v2/models/{name}/infer").first.wait_for()
    text = page.locator("main").inner_text()
    operations = server.get("/openapi.json")["paths"]
    assert all(path in text for path in operations)
    assert "curl -F files=@cat.jpg" in text


def test_files_have_types_and_are_few(server: Server, model: Path) -> None:
    from cifar_onnx import site

    names = {*site.pages(), *site.runtime(), "docs", "model.onnx"}
    for name in names:
        status, headers, body = server.ask("GET", f"/{name}")
        assert status == 200, name
        assert body
        assert headers["x-content-type-options"] == "nosniff"
    status, headers, body = server.ask("GET", "/model.onnx")
    assert body == model.read_bytes()
    assert server.ask("GET", "/model.onnx", headers={"if-none-match": headers["etag"]})[0] == 304
    assert server.ask("HEAD", "/page.mjs")[0] == 200
    for path in ("/node.mjs", "/package.json", "/../pyproject.toml", "/ort/", "/js/page.mjs", "/index.html/.."):
        assert server.ask("GET", path)[0] == 404, path
    policy = headers["content-security-policy"]
    assert re.search(r"script-src 'self' 'wasm-unsafe-eval';", policy)
    assert "frame-ancestors 'none'" in policy
