"""What a receiver installs: the wheel of cifar-onnx with its three dependencies, where `import torch` fails."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

EXPORT = Path(__file__).parent.parent / "export"


def closure(names: set[str]) -> set[str]:
    """These distributions and all that they need."""
    found: set[str] = set()
    while names - found:
        name = (names - found).pop()
        found.add(name)
        requirements = [Requirement(line) for line in distribution(name).requires or []]
        names |= {r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})}
    return found


def build(project: Path, folder: Path) -> Path:
    words = ["wheel", "--no-index", "--no-deps", "--no-build-isolation", "-qw", str(folder), str(project)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=120)
    (path,) = folder.glob("cifar_*-py3-none-any.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(EXPORT, tmp_path_factory.mktemp("wheel"))


EXTRAS = {
    "": set(),
    "evaluate": {"scikit-learn", "scipy", "jinja2", "rich"},
    "serve": {
        *("fastapi", "pydantic", "starlette", "uvicorn", "httptools", "uvloop"),
        *("python-multipart", "prometheus-client"),
    },
}


@pytest.fixture(scope="module", params=EXTRAS)
def place(wheel: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with the wheel, what it declares to need, and pytest; nothing else is importable from it."""
    extra: str = request.param
    folder = wheel.parent / f"site-{extra}"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        declared = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
    requirements = [Requirement(line) for line in declared]
    needs = {each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": extra})}
    assert needs == {"numpy", "pillow", "onnxruntime"} | EXTRAS[extra]
    for dependency in closure(needs | {"pytest"}):
        for file in distribution(dependency).files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution(dependency).locate_file(top))))
    return folder


def bare(place: Path, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Python with nothing but that folder and the standard library."""
    environment = {**os.environ, "PYTHONPATH": str(place)}
    command = [sys.executable, "-S", "-P", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place, timeout=seconds)


def test_the_wheel_carries_types_licence_and_the_page(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    pages = {f"cifar_onnx/js/{name}" for name in ("index.html", "worker.mjs", "classifier.mjs", "resizing.mjs")}
    assert {"cifar_onnx/py.typed", "cifar_onnx/js/classifier.d.mts", *pages} <= set(names)
    assert any(name.endswith("/LICENSE") for name in names)
    assert not any("tests" in name or "node_modules" in name for name in names)


def test_the_wheel_that_trains_carries_types_licence_and_templates(tmp_path: Path) -> None:
    names = zipfile.ZipFile(build(EXPORT.parent, tmp_path)).namelist()
    assert {"cifar_lightning/py.typed", "cifar_lightning/export/model_card.md.jinja"} <= set(names)
    assert any(name.endswith("/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cifar_lightning"}


def test_the_source_distribution_carries_what_its_tests_need(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=EXPORT, check=True, timeout=120, stdout=subprocess.DEVNULL)
    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/conftest.py", "tests/digits.onnx", "js/index.html"} <= names


@pytest.mark.parametrize("module", ["torch", "lightning", "onnx", "cifar_lightning"])
def test_what_trains_cannot_be_imported_there(place: Path, module: str) -> None:
    assert f"No module named '{module}'" in bare(place, "-c", f"import {module}").stderr


def test_its_own_tests_pass_there(place: Path) -> None:
    """Some of what each extra is needed for, and of what needs none."""
    needing = {
        "": ["test_main.py", "test_explain.py"],
        "evaluate": ["test_evaluation.py::TestEvaluate", "test_evaluation.py::TestCompare", "test_charts.py"],
        "serve": ["test_serving.py::TestPredict", "test_serving.py::TestOpenInferenceProtocol"],
    }
    check(place, *needing[place.name.removeprefix("site-")])


@pytest.mark.slow
def test_all_of_its_own_tests_pass_there(place: Path) -> None:
    """But for those of the page and of JavaScript; what needs an extra that is not there is skipped."""
    check(place, "", seconds=400)


def check(place: Path, *names: str, seconds: float = 120) -> None:
    tests = [str(EXPORT / "tests" / name) for name in names]
    words = ["-q", "-c", str(EXPORT / "pyproject.toml"), "--ignore-glob=*_js.py", "--ignore-glob=*_page.py"]
    result = bare(place, "-m", "pytest", *words, *tests, seconds=seconds)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr
    where = bare(place, "-c", "import cifar_onnx; print(cifar_onnx.__file__)").stdout
    assert where.startswith(str(place))


def test_it_classifies_there(place: Path, tmp_path: Path) -> None:
    model = str(EXPORT / "tests" / "digits.onnx")
    assert bare(place, "-m", "cifar_onnx", "info", model, "--samples", str(tmp_path)).returncode == 0
    result = bare(place, "-m", "cifar_onnx", "classify", "--model", model, str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 8
