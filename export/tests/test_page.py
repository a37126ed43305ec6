"""The page for people, in a browser: as a static site, and with a server."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import INFO, colours
from loopback import Host, Stub

from cifar_onnx import Classifier, contract, images, site

EVIL = "<img src=x onerror=alert(1)>"


def photo(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def noise(height: int, width: int) -> bytes:
    return images.encode_png(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pick(page: Any, *photos: dict[str, Any]) -> list[Any]:
    """Choose files, and wait for the answers: their cards, which stand before the older ones."""
    page.locator("#files").set_input_files(list(photos))
    return cards(page, len(photos))


def cards(page: Any, count: int) -> list[Any]:
    page.locator("#cards > li").nth(count - 1).wait_for()
    page.locator("#cards > [aria-busy]").first.wait_for(state="detached", timeout=60_000)
    return [page.locator("#cards > li").nth(at) for at in range(count)]


def heading(card: Any) -> str:
    text: str = card.locator("h3").text_content()
    return text


def shares(card: Any) -> list[tuple[str, float]]:
    rows = card.locator(".bars li").all()
    share = "element => Number(element.style.getPropertyValue('--share'))"
    return [(row.locator(".label").text_content(), row.locator(".bar").evaluate(share)) for row in rows]


GIVE = """(body, [kind, name, bytes]) => {
    const given = new DataTransfer();
    given.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/png" }));
    const words = { bubbles: true, cancelable: true, clipboardData: given, dataTransfer: given };
    body.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, words) : new DragEvent(kind, words));
}"""


def give(page: Any, kind: str, name: str, content: bytes) -> None:
    """Drop or paste a file."""
    page.locator("body").evaluate(GIVE, [kind, name, list(content)])


def test_a_static_site_in_a_subfolder_answers_as_python(
    page: Any, host: Callable[..., Any], model: Path, runtime: Path, tmp_path: Path
) -> None:
    site.write(model, tmp_path / "some" / "place", runtime)
    server = host(tmp_path)
    page.goto(f"{server.address}/some/place/")
    golden = [photo(f"{each.name}.png", each.encoded) for each in contract.read(model)[1].golden]
    photos = [*golden, photo("large", noise(500, 700)), photo("thin", noise(90, 3))]
    classifier = Classifier(model)

    for card, given in zip(pick(page, *photos), photos, strict=True):
        prediction = classifier(given["buffer"])
        found = shares(card)
        assert [label for label, _ in found] == [label for label, _ in prediction.top(5)]
        assert np.allclose([share for _, share in found], [share for _, share in prediction.top(5)], atol=1e-4)
        assert (heading(card) == "Unknown") == prediction.unknown
        assert (heading(card) == prediction.label) == (
            prediction.labels == (prediction.label,) and not prediction.unknown
        )
        assert card.locator(".file").text_content() == given["name"]
        assert "ms in this browser" in card.locator(".time").text_content()

    for count, kind in enumerate(("drop", "paste"), len(photos) + 1):
        give(page, kind, f"{kind}.png", golden[0]["buffer"])
        first = cards(page, count)[0]
        assert first.locator(".file").text_content() == f"{kind}.png"
        assert heading(first) == classifier(golden[0]["buffer"]).label
    assert f"paste.png: {heading(first)}" == page.locator("#status").text_content()

    failed = pick(page, photo("notes.txt", b"no picture"))[0]
    assert heading(failed) == "Not a picture that this browser can read."
    failed.locator("img").wait_for(state="detached")  # the browser says so when it likes
    empty = pick(page, photo("empty.png", b""))[0]
    assert heading(empty) == "An empty file: was it copied or downloaded to its end?"
    heic = pick(page, photo("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"))[0]
    assert heading(heic) == "Not a picture that this browser can read: convert it to JPEG."
    wide = pick(page, photo("wide.png", noise(1, 65_536)))[0]
    assert heading(wide) == "65536 x 1 pixels: no side may be longer than 65,535."

    facts = page.locator("#facts").text_content()
    assert all(words in facts for words in (model.stem, "10: 0, 1, 2", classifier.contract.digest[:12], "90 %"))
    assert page.locator("#switch, .programs").locator("visible=true").count() == 0
    assert all(each.startswith("GET /some/place/") for each in server.asked), (
        "photos stay here, and nothing else is read"
    )


def test_what_files_and_models_say_is_text(page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path) -> None:
    model = tmp_path / 'a"b<i>.onnx'
    model.write_bytes(colours(classes=[EVIL, "</script>", '"&amp;'], sets={**INFO["sets"], "threshold": 1}))
    site.write(model, tmp_path / "site", runtime)
    page.goto(f"{host(tmp_path / 'site').address}/")
    card = pick(page, photo(f"{EVIL}.png", noise(9, 9)))[0]
    assert {label for label, _ in shares(card)} == {EVIL, "</script>", '"&amp;'}
    assert "or maybe" in heading(card)
    assert EVIL in heading(card)
    assert card.locator(".file").text_content() == f"{EVIL}.png"
    facts = page.locator("#facts").text_content()
    assert EVIL in facts
    assert model.stem in facts
    assert page.locator("img").count() == 1


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_the_map_lies_on_the_square_that_the_net_sees(
    resize: str, page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(colours(input={"size": 8, "resize": resize}))
    site.write(tmp_path / "m.onnx", tmp_path / "site", runtime)
    page.goto(f"{host(tmp_path / 'site').address}/")
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[5:9, 22:28, 0] = np.arange(131, 255, 5.2).reshape(4, 6)
    card = pick(page, photo("a.png", images.encode_png(pixels)))[0]
    canvas = card.locator("canvas")
    canvas.wait_for()
    ink = "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, 8, 8).data).filter((_, at) => at % 4 === 3)"
    red = Classifier(tmp_path / "m.onnx").square(pixels)[..., 0]
    assert len(np.unique(red)) > 4
    assert np.abs(np.reshape(canvas.evaluate(ink), (8, 8)) - 175 * (red / red.max())).max() <= 1
    lies, shown = canvas.bounding_box(), card.locator("img").bounding_box()
    side = {"stretch": (40, 20), "crop": (20, 20), "pad": (40, 40)}[resize]
    unit = shown["width"] / 40
    assert (lies["width"] / unit, lies["height"] / unit) == pytest.approx(side, abs=0.1)
    for at, length in (("x", "width"), ("y", "height")):
        assert lies[at] + lies[length] / 2 == pytest.approx(shown[at] + shown[length] / 2, abs=0.5)
    page.get_by_label("Show what supports the answer").uncheck()
    assert canvas.is_hidden()


def test_keys_are_enough_and_the_camera_takes_a_picture(
    page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(colours())
    site.write(tmp_path / "m.onnx", tmp_path / "site", runtime)
    page.add_init_script("""
        const media = MediaDevices.prototype, ask = media.getUserMedia;
        window.streams = [];
        media.getUserMedia = async function (wish) {
            document.documentElement.dataset.streams = streams.push(await ask.call(this, wish));
            return streams.at(-1);
        };
    """)
    page.goto(f"{host(tmp_path / 'site').address}/")
    page.locator("#facts").wait_for()
    files = page.locator("#files")
    # Not expect_file_chooser, which on a busy machine misses one of twenty.
    files.evaluate("input => (input.onclick = () => (input.dataset.opened = 'yes'))")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#files[data-opened]").wait_for(state="attached")
    pick(page, photo("a.png", noise(9, 9)))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#camera").evaluate("button => button.click()")  # pressed twice, while the browser asks
    page.wait_for_selector("video")
    # Not wait_for_function, which evaluates text when it looks a second time: the page's policy forbids that.
    page.locator("html[data-streams='2']").wait_for(state="attached")
    page.locator("video").evaluate("video => video.videoWidth || new Promise((go) => (video.onloadeddata = go))")
    assert page.evaluate("document.activeElement.id") == "shutter"
    page.keyboard.press("Enter")
    assert cards(page, 2)[0].locator(".file").text_content() == "picture 1.png"
    assert page.evaluate("streams.length === 2 && streams.every(({ active }) => !active)")
    for _ in range(2):  # over the switch of the maps
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#results").is_hidden()
    assert page.evaluate("document.activeElement.id") == "files"


def served(folder: Path, model: bytes) -> Path:
    folder.mkdir()
    for name, path in site.pages().items():
        shutil.copy(path, folder / name)
    (folder / "model.onnx").write_bytes(model)
    return folder


def test_a_server_gets_the_photos_until_the_browser_does(
    page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path, troubles: list[str]
) -> None:
    folder = served(tmp_path / "served", colours())
    shutil.copytree(
        runtime, folder / "ort", ignore=lambda _, names: [n for n in names if f"ort/{n}" not in site.runtime(runtime)]
    )
    handler = type("Own", (Stub,), {})
    server = host(folder, handler)
    page.goto(server.address)
    found = pick(page, *(photo(f"{name}.png", noise(9, 9)) for name in "abcdefgh"), photo("bad.png", b"bad"))
    assert [heading(card) for card in found] == ["red"] * 8 + ["Bad.png: cannot be decoded."]
    assert found[0].locator(".time").text_content() == "3 ms on the server"
    assert found[0].locator(".bars").text_content().split() == ["red75.0", "%blue25.0", "%"]
    assert handler.most == 4
    assert handler.posts == 10
    assert all("503" in each or "422" in each for each in troubles), troubles
    troubles.clear()
    assert not any("/ort/" in each or "/model.onnx" in each for each in server.asked)

    page.get_by_label("Run in this browser").check()
    first = pick(page, photo("green.png", images.encode_png(np.full((9, 9, 3), (0, 99, 0), np.uint8))))[0]
    assert heading(first) == "green"
    assert "in this browser" in first.locator(".time").text_content()
    assert handler.posts == 10
    assert page.evaluate("crossOriginIsolated")
    assert page.title() == "Classify photos with colours"


def test_an_open_page_tells_of_the_model_that_has_taken_over(
    page: Any, host: Callable[..., Any], tmp_path: Path
) -> None:
    handler = type("Own", (Stub,), {"posts": 1})
    server = host(served(tmp_path / "served", b""), handler)
    page.goto(server.address)
    pick(page, photo("a.png", noise(9, 9)))
    assert "3: red, green, blue" in page.locator("#facts").text_content()
    handler.about = {**Stub.about, "name": "lights", "classes": ["red", "blue"], "digest": "1" * 64}
    for name in "bc":
        assert heading(pick(page, photo(f"{name}.png", noise(9, 9)))[0]) == "red"
    assert "2: red, blue" in page.locator("#facts").text_content()
    assert page.title() == "Classify photos with lights"
    assert sum("/contract" in each for each in server.asked) == 2


def test_an_open_page_tells_of_the_model_that_answers_and_both_sides_have_the_new_one(
    page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path
) -> None:
    handler = type("Own", (Stub,), {"posts": 1})
    folder = served(tmp_path / "served", colours())
    shutil.copytree(
        runtime, folder / "ort", ignore=lambda _, names: [n for n in names if f"ort/{n}" not in site.runtime(runtime)]
    )
    page.goto(host(folder, handler).address)
    facts, switch = page.locator("#facts"), page.get_by_label("Run in this browser")
    old, new = (contract.parse(data).digest for data in (colours(), colours(temperature=2.5)))

    def answered(name: str) -> str:
        assert heading(pick(page, photo(name, images.encode_png(np.full((9, 9, 3), (99, 0, 0), np.uint8))))[0]) == "red"
        return facts.text_content()

    assert "0" * 12 in answered("a.png")
    switch.check()
    assert old[:12] in answered("b.png")
    (folder / "model.onnx").write_bytes(colours(temperature=2.5))
    handler.about = {**Stub.about, "digest": new}
    assert old[:12] in answered("c.png")
    switch.uncheck()
    assert new[:12] in answered("d.png")
    for _ in range(500):
        if page.workers:
            page.wait_for_timeout(10)
    assert not page.workers
    switch.check()
    assert new[:12] in answered("e.png")
    assert len(page.workers) == 1
    assert page.title() == "Classify photos with colours"


def test_a_model_that_does_not_load_is_said_and_its_photos_stay(
    page: Any, host: Callable[..., Any], tmp_path: Path, troubles: list[str]
) -> None:
    handler = type("Own", (Stub,), {"posts": 1})
    page.goto(host(served(tmp_path / "served", colours()), handler).address)
    page.get_by_label("Run in this browser").check()
    said = page.get_by_role("alert").text_content()
    assert said.startswith("Ort/ort-wasm-simd-threaded.wasm cannot be loaded")
    (card,) = pick(page, photo("a.png", noise(9, 9)))
    assert heading(card) == said
    assert handler.posts == 1
    page.get_by_label("Run in this browser").uncheck()
    assert heading(pick(page, photo("a.png", noise(9, 9)))[0]) == "red"
    assert all("404" in each for each in troubles)
    troubles.clear()


@pytest.mark.parametrize("lacks", ["", "model.onnx", "ort-wasm-simd-threaded.wasm"])
def test_how_much_is_loaded_is_told_where_the_host_says_how_much_there_is(
    lacks: str, page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path
) -> None:
    class Compressing(Host):
        """Like hosts that compress files on the way."""

        def send_header(self, keyword: str, value: str) -> None:
            if not (lacks and self.path.endswith(lacks) and keyword == "Content-Length"):
                super().send_header(keyword, value)

    (tmp_path / "m.onnx").write_bytes(colours())
    site.write(tmp_path / "m.onnx", tmp_path / "site", runtime)
    page.goto(f"{host(tmp_path / 'site', Compressing).address}/")
    page.locator("#facts").wait_for()
    told = page.evaluate("""async () => {
        const { connect } = await import("./browser.js");
        const told = [];
        await connect((share) => told.push(share), () => {});
        return told;
    }""")
    assert told == sorted(told)
    assert told[-1:] == ([] if lacks else [1])


def test_of_a_load_that_has_failed_nothing_is_left(page: Any, host: Callable[..., Any], tmp_path: Path) -> None:
    """Neither its error, once the choice is taken back, nor where its bar stood."""
    loads = """
        export function connect(progress) {
          if (window.asked) return new Promise((_, fail) => Object.assign(asked, { progress, fail }));
          window.asked = {};
          progress(0.5);
          return Promise.reject(new Error("no model"));
        }
    """
    page.route("**/browser.mjs", lambda route: route.fulfill(content_type="text/javascript", body=loads))
    page.goto(host(served(tmp_path / "served", b""), type("Own", (Stub,), {"posts": 1})).address)
    choice, said, bar = page.get_by_label("Run in this browser"), page.get_by_role("alert"), page.locator("#progress")
    choice.check()
    assert said.text_content() == "No model."
    choice.uncheck()
    page.get_by_text("Photos are now classified on the server.").wait_for(state="attached")
    assert said.is_hidden()
    choice.check()
    bar.wait_for()
    assert bar.evaluate("bar => bar.position") == -1  # indeterminate
    page.evaluate("asked.progress(0.25)")
    assert bar.evaluate("bar => bar.position") == 0.25


@pytest.mark.parametrize("end", ["give({ place: 'in this browser' })", "fail(new Error('no model'))"])
def test_of_a_choice_that_has_been_changed_nothing_is_said(
    end: str, page: Any, host: Callable[..., Any], tmp_path: Path
) -> None:
    """When the model has come at last: photos go to the server."""
    waiting = "export const connect = () => new Promise((give, fail) => Object.assign(window, { give, fail }));"
    page.route("**/browser.mjs", lambda route: route.fulfill(content_type="text/javascript", body=waiting))
    page.goto(host(served(tmp_path / "served", b""), type("Own", (Stub,), {"posts": 1})).address)
    page.get_by_label("Run in this browser").check()
    page.get_by_label("Run in this browser").uncheck()
    page.get_by_text("Photos are now classified on the server.").wait_for(state="attached")
    page.evaluate(end)
    page.locator("#loading").wait_for(state="hidden")
    page.evaluate("new Promise(requestAnimationFrame)")
    assert page.get_by_role("status").text_content() == "Photos are now classified on the server."
    assert page.locator("#trouble").is_hidden()


@pytest.mark.parametrize("runs", ["server", "server-only", "browser"])
def test_a_photo_tries_again_what_could_not_be_reached(
    runs: site.Runs, page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path, troubles: list[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(colours())
    site.write(tmp_path / "m.onnx", tmp_path / "site", runtime)
    at_server = served(tmp_path / "served", b""), type("Own", (Stub,), {"runs": runs, "posts": 1})
    missing = "**/model.onnx" if runs == "browser" else "**/contract"
    page.route(missing, lambda route: route.abort())
    page.goto(f"{host(*((tmp_path / 'site', Host) if runs == 'browser' else at_server)).address}/")
    said = page.get_by_role("alert").text_content()
    assert heading(pick(page, photo("a.png", noise(9, 9)))[0]) == said
    assert page.locator("#facts").is_hidden()
    page.unroute(missing)
    red = images.encode_png(np.full((9, 9, 3), (99, 0, 0), np.uint8))
    assert [heading(card) for card in pick(page, photo("b.png", red), photo("c.png", red))] == ["red", "red"]
    assert page.get_by_role("alert").is_hidden()
    assert "3: red, green, blue" in page.locator("#facts").text_content()
    assert all("ERR_FAILED" in each for each in troubles), troubles
    troubles.clear()


def test_photos_that_wait_for_a_worker_which_breaks_down_fail_and_the_next_gets_another(
    page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path, troubles: list[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(colours())
    site.write(tmp_path / "m.onnx", tmp_path / "site", runtime)
    page.goto(f"{host(tmp_path / 'site').address}/")
    page.locator("#facts").wait_for()
    page.workers[0].evaluate("() => { onmessage = () => { throw new Error('broken'); }; }")
    photos = [photo(f"{name}.png", noise(9, 9)) for name in "ab"]
    said = "The model cannot be run in this browser."
    assert [heading(card) for card in pick(page, *photos)] == [said, said]
    red = photo("red.png", images.encode_png(np.full((9, 9, 3), (99, 0, 0), np.uint8)))
    assert heading(pick(page, red)[0]) == "red"
    assert all("broken" in each for each in troubles), troubles
    troubles.clear()


def test_a_page_that_cannot_run_says_what_it_needs(
    page: Any, runtime: Path, tmp_path: Path, troubles: list[str]
) -> None:
    """One that is opened as a file, for which browsers load no modules."""
    (tmp_path / "m.onnx").write_bytes(colours())
    site.write(tmp_path / "m.onnx", tmp_path / "site", runtime)
    page.goto((tmp_path / "site" / "index.html").as_uri())
    notice = page.get_by_text("JavaScript and a web server")
    assert notice.is_hidden()  # at first: it would flicker where all is well
    page.evaluate("document.getAnimations().forEach((each) => each.finish())")
    assert notice.is_visible()
    troubles.clear()


@pytest.mark.parametrize("value", [0, 127])
def test_what_a_browser_gives_in_the_place_of_pixels_is_not_classified(
    value: int, page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path
) -> None:
    """Noise, in Firefox that resists fingerprinting, or nothing."""
    (tmp_path / "m.onnx").write_bytes(colours())
    site.write(tmp_path / "m.onnx", tmp_path / "site", runtime)
    page.goto(f"{host(tmp_path / 'site').address}/")
    page.locator("#facts").wait_for()
    page.workers[0].evaluate(
        """() => {
        const context = OffscreenCanvasRenderingContext2D.prototype;
        context.getImageData = (x, y, width, height) =>
            new ImageData(new Uint8ClampedArray(width * height * 4).fill(VALUE), width, height);
    }""".replace("VALUE", str(value))
    )
    said = heading(pick(page, photo("a.png", noise(20, 30)))[0])
    assert said == "The browser does not let this page read a photo's pixels: it guards against fingerprinting."


def test_older_browsers_read_photos_upright_whatever_their_size(
    page: Any, host: Callable[..., Any], model: Path, runtime: Path, tmp_path: Path
) -> None:
    """Safari before 17 refuses `from-image`, which is what it does without being told, and on iPhones it limits the
    size of a canvas. No bitmap is held for longer than it is needed."""
    site.write(model, tmp_path / "site", runtime)
    page.goto(f"{host(tmp_path / 'site').address}/")
    page.locator("#facts").wait_for()
    page.workers[0].evaluate("""() => {
        const make = createImageBitmap;
        self.held = 0;
        self.createImageBitmap = async (photo, { imageOrientation = "none", ...options }) => {
            if (imageOrientation !== "none") throw new TypeError(imageOrientation);
            const bitmap = await make(photo, options);
            held++;
            bitmap.close = () => held--;
            return bitmap;
        };
        self.OffscreenCanvas = class extends OffscreenCanvas {
            constructor(width, height) {
                if (width * height > 2 ** 20) throw new RangeError("too large");
                super(width, height);
            }
        };
    }""")
    (rotated,) = (each.encoded for each in contract.read(model)[1].golden if each.name == "rotated")
    blocks = np.random.default_rng(0).integers(0, 256, (25, 10, 4), dtype=np.uint8)
    blocks[..., 3] = blocks[..., 3] // 128 * 255  # some of them are transparent
    large = images.encode_png(blocks.repeat(100, 0).repeat(100, 1))
    photos = [photo("rotated.png", rotated), photo("large.png", large)]
    for card, given in zip(pick(page, *photos), photos, strict=True):
        expected = dict(Classifier(model)(given["buffer"]).top(5))
        assert dict(shares(card)) == pytest.approx(expected, abs=1e-4)
    wide = pick(page, photo("wide.png", noise(1, 65_536)))[0]
    assert "no side may be longer" in heading(wide)
    assert page.workers[0].evaluate("held") == 0


def test_whatever_is_thrown_fails_its_photo_alone(
    page: Any, host: Callable[..., Any], runtime: Path, tmp_path: Path
) -> None:
    """Strings, numbers and errors without a message, of more photos than are answered at a time."""
    (tmp_path / "m.onnx").write_bytes(colours())
    site.write(tmp_path / "m.onnx", tmp_path / "site", runtime)
    page.goto(f"{host(tmp_path / 'site').address}/")
    page.locator("#facts").wait_for()
    page.workers[0].evaluate("""() => {
        const thrown = ["out of memory", 7, "", new RangeError(), new Error("it broke")];
        const context = OffscreenCanvasRenderingContext2D.prototype, read = context.getImageData;
        context.getImageData = function (...part) {
            if (thrown.length) throw thrown.shift();
            return read.apply(this, part);
        };
    }""")
    red = photo("red.png", images.encode_png(np.full((9, 9, 3), (99, 0, 0), np.uint8)))
    said = ["Out of memory.", "7.", "Error.", "RangeError.", "It broke.", "red"]
    assert [heading(card) for card in pick(page, *[red] * 6)] == said


def test_a_file_that_cannot_be_read_is_no_trouble_of_the_server(
    page: Any, host: Callable[..., Any], tmp_path: Path, troubles: list[str]
) -> None:
    page.goto(host(served(tmp_path / "served", b""), type("Own", (Stub,), {"runs": "server-only", "posts": 1})).address)
    page.locator("#facts").wait_for()
    gone = tmp_path / "gone.png"
    gone.write_bytes(noise(9, 9))
    page.locator("#files").evaluate("input => { window.add = input.onchange; input.onchange = null; }")
    page.locator("#files").set_input_files(str(gone))
    gone.unlink()
    page.locator("#files").evaluate("input => add({ target: input })")
    assert heading(cards(page, 1)[0]) == "The file cannot be read: it is a folder, or has changed since it was chosen."
    troubles.clear()  # the picture cannot be shown either


@pytest.mark.parametrize(
    ("name", "message", "said"),
    [
        ("NotAllowedError", "It broke.", "This page is not allowed to use the camera."),
        ("AbortError", "It broke.", "It broke."),
        ("AbortError", "", "AbortError."),
    ],
)
def test_a_camera_that_cannot_be_used_is_said(
    name: str, message: str, said: str, page: Any, host: Callable[..., Any], tmp_path: Path
) -> None:
    page.goto(host(served(tmp_path / "served", b""), type("Own", (Stub,), {"runs": "server-only"})).address)
    page.locator("#facts").wait_for()
    fails = "words => (navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException(...words)))"
    page.evaluate(fails, [message, name])
    page.get_by_role("button", name="Use the camera").click()
    assert page.get_by_role("alert").text_content() == said
    assert page.locator("#viewfinder").is_hidden()


def test_the_buttons_of_the_camera_are_in_sight_on_a_phone_that_lies_on_its_side(
    page: Any, host: Callable[..., Any], tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 667, "height": 320})
    page.goto(host(served(tmp_path / "served", b""), type("Own", (Stub,), {"runs": "server-only"})).address)
    page.locator("#facts").wait_for()
    assert page.locator("#viewfinder").is_hidden()
    page.get_by_role("button", name="Use the camera").click()
    video = page.locator("video")
    video.evaluate("video => video.videoWidth || new Promise((go) => (video.onloadeddata = go))")
    picture, *buttons = (each.bounding_box() for each in (video, *page.locator("#viewfinder button").all()))
    assert picture["height"] > 100
    assert all(picture["y"] + picture["height"] <= each["y"] for each in buttons)
    assert all(each["y"] + each["height"] <= 320 for each in buttons)


def test_forced_colours_leave_switches_and_shares_visible(page: Any, host: Callable[..., Any], tmp_path: Path) -> None:
    """They paint over all backgrounds."""
    page.emulate_media(forced_colors="active")
    page.goto(host(served(tmp_path / "served", b""), type("Own", (Stub,), {"posts": 1})).address)
    pick(page, photo("a.png", noise(9, 9)))
    assert page.locator("#idle").count() == 0
    painted = """element => {
        const { borderTopWidth, borderTopColor } = getComputedStyle(element, "::before");
        return borderTopWidth === "6px" && borderTopColor !== getComputedStyle(document.body).backgroundColor;
    }"""
    assert page.locator("#switch").evaluate(painted)
    assert page.locator(".bar").first.evaluate(painted)


def test_nothing_moves_where_that_is_not_wanted(page: Any, host: Callable[..., Any], tmp_path: Path) -> None:
    """The knob of the switch is a pseudo-element."""
    page.goto(host(served(tmp_path / "served", b""), type("Own", (Stub,), {"posts": 1})).address)
    page.locator("#facts").wait_for()
    moves = """() => ["", "::before", "::after"].some((part) =>
        Array.from(document.querySelectorAll("*")).some((element) =>
            parseFloat(getComputedStyle(element, part).transitionDuration) > 0))"""
    assert page.evaluate(moves)
    page.emulate_media(reduced_motion="reduce")
    assert not page.evaluate(moves)


def test_photos_that_are_cleared_away_are_waited_for_no_more(
    page: Any, host: Callable[..., Any], tmp_path: Path
) -> None:
    handler = type("Own", (Stub,), {"posts": 1})
    page.goto(host(served(tmp_path / "served", b""), handler).address)
    page.locator("#facts").wait_for()
    page.evaluate("""() => {
        const given = new DataTransfer();
        for (let n = 0; n < 20; n++) given.items.add(new File(["x"], `${n}.png`, { type: "image/png" }));
        document.dispatchEvent(new DragEvent("drop", { cancelable: true, dataTransfer: given }));
        document.getElementById("clear").click();
    }""")
    assert heading(pick(page, photo("a.png", noise(9, 9)))[0]) == "red"
    assert handler.posts == 1 + 4 + 1


def test_photos_are_let_go_of_once_they_are_shown_cannot_be_shown_or_are_cleared_away(
    page: Any, host: Callable[..., Any], tmp_path: Path
) -> None:
    page.add_init_script("""
        const { createObjectURL, revokeObjectURL } = URL;
        window.held = new Set();
        URL.createObjectURL = (file) => {
          const url = createObjectURL(file);
          held.add(url);
          return url;
        };
        URL.revokeObjectURL = (url) => {
          held.delete(url);
          revokeObjectURL(url);
        };
    """)
    page.goto(host(served(tmp_path / "served", b""), type("Own", (Stub,), {"posts": 1})).address)
    page.locator("#facts").wait_for()
    pick(page, photo("a.png", noise(9, 9)), photo("b.png", b"no picture"))
    page.wait_for_function("!held.size", timeout=5000)
    assert page.evaluate("""() => {
        const given = new DataTransfer();
        for (let n = 0; n < 20; n++) given.items.add(new File(["x"], `${n}.png`, { type: "image/png" }));
        document.dispatchEvent(new DragEvent("drop", { cancelable: true, dataTransfer: given }));
        const before = held.size;
        document.getElementById("clear").click();
        return [before, held.size];
    }""") == [20, 0]
    pick(page, photo("c.png", noise(9, 9)))  # whose turn comes last


def test_a_server_without_the_runtime_leaves_no_choice(page: Any, host: Callable[..., Any], tmp_path: Path) -> None:
    handler = type("Own", (Stub,), {"runs": "server-only", "posts": 1})
    page.goto(host(served(tmp_path / "served", b""), handler).address)
    assert heading(pick(page, photo("a.png", noise(9, 9)))[0]) == "red"
    assert page.get_by_label("Run in this browser").is_hidden()
    assert page.locator("#promise").is_hidden()


def test_the_api_is_shown_as_text(page: Any, host: Callable[..., Any], tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string", "description": EVIL}}, "required": ["label"]}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}}
    one = {
        "summary": "Classify pictures",
        "parameters": [{"name": "top_k", "in": "query", "schema": {"type": "integer", "default": 5}}],
        "requestBody": body,
        "responses": {"200": {"description": "Done", **body}},
        "x-example": "curl -F files=@cat.jpg",
    }
    spec = {
        "info": {"title": EVIL, "version": "1"},
        "paths": {"/predict": {"post": one}},
        "components": {"schemas": {"Answer": schema}},
    }
    folder = served(tmp_path / "served", b"")
    (folder / "openapi.json").write_text(json.dumps(spec))
    page.goto(f"{host(folder, Stub).address}/api.html")
    page.locator("section").wait_for()
    text = page.locator("body").inner_text()
    for words in (
        EVIL,
        "POST /predict",
        "Classify pictures",
        "curl -F files=@cat.jpg",
        "label string, required",
        "200 Done",
    ):
        assert words in text
    assert "top_k integer, in the query, default 5" in text
    assert page.locator("img").count() == 0
