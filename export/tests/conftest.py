"""A small classifier of handwritten digits, as `python -m cifar_lightning export` wrote it.

Made by: fit --data Digits --model.net.init_args.widths "[8, 8]" --model.net.init_args.hidden 16
--model.net.init_args.dropout 0 --model.optimizer.init_args.lr 0.01 --trainer.max_epochs 20
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from loopback import Host, serve

from cifar_onnx import InputError, contract, site

MODEL = Path(__file__).parent / "digits.onnx"


@pytest.fixture(scope="session", autouse=True)
def _own_terminal() -> Iterator[None]:
    """The one that the tests are started from, or CI, may ask for colours, for none, or for lines of some length."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FORCE_COLOR", "NO_COLOR", "PYTHON_COLORS", "TTY_COMPATIBLE", "COLUMNS", "LINES"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm")
        yield


@pytest.fixture
def model() -> Path:
    return MODEL


@pytest.fixture(scope="session")
def said() -> Callable[..., str]:
    """Decode what a process wrote to stderr, but for what onnxruntime says of CPUs that it does not know."""

    def decode(stderr: bytes, encoding: str = "utf-8") -> str:
        return re.sub(r"onnxruntime cpuid_info warning: .*\n", "", stderr.decode(encoding))

    return decode


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder with the pictures that the model carries."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for number, golden in enumerate(contract.read(MODEL)[1].golden):
        (folder / f"{number}-{golden.label}.png").write_bytes(golden.encoded)
    return folder


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model with some bytes replaced, and sealed anew if asked."""

    def change(old: bytes, new: bytes, seal: bool = False) -> Path:
        data, known = contract.read(MODEL)
        assert old in data
        data = data.replace(old, new, 1)
        if seal:
            data = contract.seal(data.replace(known.digest.encode(), contract.BLANK.encode(), 1))
        path = tmp_path / "changed.onnx"
        path.write_bytes(data)
        return path

    return change


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The model without its contract: another key in the place of `classifier`."""
    path = tmp_path / "foreign.onnx"
    path.write_bytes(MODEL.read_bytes().replace(b"\n\nclassifier\x12", b"\n\nunknown_it\x12"))
    with pytest.raises(InputError, match="without a contract"):
        contract.read(path)
    return path


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The folder of onnxruntime-web."""
    try:
        return site.runtime()["ort/ort.wasm.bundle.min.mjs"].parent
    except InputError:
        pytest.skip("onnxruntime-web is not installed: make web")


# Not for the session: while Playwright is at work, asyncio.run is refused to other tests.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, which reaches this machine only."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("neither chromium nor google-chrome is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path,
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
                "--js-flags=--liftoff-only",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def troubles() -> list[str]:
    """What a page complained of, and where else it went; a test that expects it clears it."""
    return []


@pytest.fixture
def page(browser: Any, troubles: list[str]) -> Iterator[Any]:
    """A page that has to have no troubles."""
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    page = context.new_page()
    page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))

    def look(request: Any) -> None:
        if not request.url.startswith("blob:") and urlsplit(request.url).hostname != "127.0.0.1":
            troubles.append(request.url)

    context.on("request", look)
    yield page
    context.close()
    assert not troubles


@pytest.fixture
def host() -> Iterator[Callable[..., Any]]:
    """Serves a folder on this machine; of what it returns `address` is where, and `asked` lists the requests."""
    with ExitStack() as stack:
        yield lambda folder, handler=Host: stack.enter_context(serve(folder, handler))
