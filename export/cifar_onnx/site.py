"""The page for people: the files of which it is made, and a static site of them that runs a model in the browser."""

from html import escape
from os import PathLike
from pathlib import Path
from typing import Literal

from cifar_onnx import contract
from cifar_onnx.errors import InputError

Runs = Literal["server", "server-only", "browser"]  # where photos are classified: server-only leaves no choice

_HERE = Path(__file__).parent
JS = _HERE / "js" if (_HERE / "js").is_dir() else _HERE.parent / "js"  # in a wheel, or in a checkout
RUNTIME = "onnxruntime-web@1.30.0"  # as in js/package.json

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
CSP = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'"
)

_INDEX = "index.html"
_PAGE = (
    *("page.css", "icon.svg", "page.mjs", "card.mjs", "facts.mjs", "camera.mjs"),
    *("server.mjs", "browser.mjs", "worker.mjs", "classifier.mjs", "resizing.mjs"),
)
_API = ("api.html", "api.mjs")
_SUFFIXES = (".mjs", ".js")  # of modules here and on static sites: nginx and others have no media type for the former
_RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def pages() -> dict[str, Path]:
    """The files that a server sends beside `index`: their address and where they are."""
    return {name: JS / name for name in (*_PAGE, *_API)}


def index(runs: Runs, name: str = "") -> str:
    """The page itself.

    Args:
        runs: where photos are classified. A page for `browser` needs no server, and carries its security policy.
        name: of the model; a page with a server asks that for it.
    """
    html = (JS / _INDEX).read_text(encoding="utf-8")
    if runs == "browser":
        policy = f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
        html = html.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n    {policy}', 1)
        html = html.replace(*_SUFFIXES)
    return html.replace('data-runs="server"', f'data-runs="{runs}" data-name="{escape(name)}"', 1)


def runtime(folder: str | PathLike[str] | None = None) -> dict[str, Path]:
    """The files of onnxruntime-web: their address and where they are.

    Args:
        folder: where to look; by default what npm has installed in the current folder or beside the page's files.

    Raises:
        InputError: they are not there.
    """
    installed = [place / "node_modules" / "onnxruntime-web" / "dist" for place in (Path(), JS)]
    for place in installed if folder is None else [Path(folder)]:
        if all((place / name).is_file() for name in _RUNTIME):
            return {f"ort/{name}": place / name for name in _RUNTIME}
    if folder is not None:
        raise InputError(f"{folder}: holds no {' and '.join(_RUNTIME)}: name the folder dist of onnxruntime-web")
    raise InputError(f"onnxruntime-web was not found: npm install {RUNTIME} in this folder, or name its dist folder")


def write(model: str | PathLike[str], output: Path, folder: str | PathLike[str] | None = None) -> None:
    """Write a static site: the page, onnxruntime-web and the model.

    Args:
        model: path of a model.onnx with a contract.
        output: a folder that is new, empty, or such a site.
        folder: where onnxruntime-web is, as for `runtime`.

    Raises:
        InputError: the model is not one, onnxruntime-web is not there, or the folder holds something else.
    """
    data, _ = contract.read(model)
    files = {name: JS / name for name in _PAGE} | runtime(folder)
    if output.is_dir() and any(output.iterdir()) and not (output / "worker.js").is_file():
        raise InputError(f"{output}: holds other files: name a new folder")
    old, new = _SUFFIXES
    for name, path in files.items():
        target, content = output / name.replace(old, new), path.read_bytes()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.replace(old.encode(), new.encode()) if name in _PAGE else content)
    (output / "model.onnx").write_bytes(data)
    (output / _INDEX).write_text(index("browser", contract.title(model)), encoding="utf-8")
