"""The files of the page, and `python -m cifar_onnx web`, which writes a static site of them."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from cifar_onnx import site
from cifar_onnx.__main__ import main


def test_a_site_is_written_again_but_over_nothing_else(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    runtime.mkdir(parents=True)
    for name in site._RUNTIME:
        (runtime / name).write_text("")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["web", str(model), "--output", "site"]) == 0
    written = {str(path.relative_to("site")) for path in Path("site").rglob("*") if path.is_file()}
    index = Path("site/index.html").read_text()
    assert 'data-runs="browser" data-name="digits"' in index
    assert all(name in written for name in ("model.onnx", "worker.js", "ort/ort-wasm-simd-threaded.wasm"))
    assert not any(name in written for name in ("node.js", "api.html", "package.json"))
    assert not [name for name in written if name.endswith(".mjs") or b".mjs" in Path("site", name).read_bytes()]
    assert Path("site/model.onnx").read_bytes() == model.read_bytes()
    capsys.readouterr()
    Path("photos").mkdir()
    Path("photos/a.jpg").write_text("")
    for words, said in [
        (["--output", "photos"], "photos: holds other files"),
        (["--output", "new", "--runtime", "photos"], "photos: holds no ort.wasm.bundle.min.mjs"),
    ]:
        assert main(["web", str(model), *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["web", "photos/a.jpg"]) == 2
    assert "photos/a.jpg: an empty file" in capsys.readouterr().err
    shutil.rmtree("node_modules")
    monkeypatch.setattr(site, "JS", tmp_path)
    assert main(["web", str(model), "--output", "new"]) == 2
    assert f"npm install {site.RUNTIME}" in capsys.readouterr().err
    assert not Path("new").exists()


def test_the_name_of_a_model_is_text_on_the_page() -> None:
    page = site.index("browser", '"><script>')
    assert "<script>" not in page
    assert 'data-name="&quot;&gt;&lt;script&gt;"' in page


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_the_name_of_a_models_file_need_not_be_text(model: Path, tmp_path: Path) -> None:
    for name in site._RUNTIME:
        (tmp_path / name).touch()
    path = tmp_path / os.fsdecode(b"m\xff.onnx")
    path.write_bytes(model.read_bytes())
    site.write(path, tmp_path / "site", tmp_path)
    assert r'data-name="m\udcff"' in (tmp_path / "site" / "index.html").read_text()


def test_every_module_and_style_that_the_pages_name_is_served() -> None:
    names, found = {"index.html", *site.pages()}, set[str]()
    for name in names:
        text = (site.JS / name).read_text()
        for other in re.findall(r'(?:from|href=|src=|URL\() ?"(?:\./)?([\w.]+\.(?:mjs|css|svg|html))"', text):
            assert other in names, f"{name} names {other}"
            found.add(other)
        assert Path(name).suffix in site.MEDIA_TYPES
    assert len(found) >= 10


def test_the_version_of_the_runtime_is_that_of_npm() -> None:
    wanted = json.loads((site.JS / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    assert f"onnxruntime-web@{wanted}" == site.RUNTIME
