"""Who may import what, and what a help text may load."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Collection
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cifar_lightning
import cifar_onnx
from tests.conftest import make_photos

ROOT = Path(__file__).parent.parent
HEAVY = {
    *("torch", "torchvision", "lightning", "torchmetrics", "onnx", "onnxruntime"),
    *("numpy", "rich", "sklearn", "scipy", "matplotlib", "jinja2", "fastapi"),
}
OURS = "cifar_lightning."

# Module or folder -> what it may import, of third parties and of this package.
LAW = {
    "cifar_lightning/__main__.py": {
        "cifar_onnx", OURS + "__version__", OURS + "cli.usage", OURS + "main", OURS + "leaderboard",
    },
    "cifar_lightning/cli": {
        "torch", "lightning", "jsonargparse", "cifar_onnx", OURS + "augment", OURS + "callbacks", OURS + "checkpoint",
        OURS + "cli", OURS + "data", OURS + "distill", OURS + "error_source", OURS + "files", OURS + "interruption",
        OURS + "loss", OURS + "mix", OURS + "module", OURS + "nets", OURS + "runs", OURS + "trusted_classes",
    },
    "cifar_lightning/cli/choices.py": set(),
    "cifar_lightning/cli/command.py": {
        "lightning", "cifar_onnx", OURS + "cli.choices", OURS + "cli.config_file", OURS + "runs",
    },
    "cifar_lightning/cli/config_file.py": {"yaml", "jsonargparse", "cifar_onnx"},
    "cifar_lightning/cli/devices.py": {"torch", "jsonargparse", OURS + "cli.command"},
    "cifar_lightning/cli/dry_run.py": {
        "torch", "cifar_onnx", OURS + "batch", OURS + "error_source", OURS + "data", OURS + "module",
        OURS + "outputs",
    },
    "cifar_lightning/cli/metrics_file.py": {"lightning", OURS + "checkpoint", OURS + "runs"},
    "cifar_lightning/cli/parser.py": {
        "torch", "lightning", "jsonargparse", OURS + "augment", OURS + "cli.choices", OURS + "mix", OURS + "data",
        OURS + "suggestion",
    },
    "cifar_lightning/cli/settings.py": {
        "torch", "lightning", "jsonargparse", "cifar_onnx", OURS + "callbacks", OURS + "module",
    },
    "cifar_lightning/cli/run.py": {
        "torch", "lightning", "cifar_onnx", OURS + "callbacks", OURS + "checkpoint", OURS + "cli", OURS + "malloc",
        OURS + "trusted_classes",
    },
    "cifar_lightning/cli/run_config.py": {
        "lightning", OURS + "callbacks.run_folder", OURS + "cli.command", OURS + "cli.config_file", OURS + "files",
    },
    "cifar_lightning/cli/trainer.py": {
        "lightning", "cifar_onnx", OURS + "checkpoint", OURS + "data", OURS + "evaluation",
        OURS + "export", OURS + "files", OURS + "module", OURS + "runs",
    },
    "cifar_lightning/cli/usage.py": set(),
    "cifar_lightning/main.py": {
        "lightning", "jsonargparse", "yaml", "filelock", "cifar_onnx", OURS + "cli", OURS + "error_source",
        OURS + "export", OURS + "finite", OURS + "interruption", OURS + "reproduce", OURS + "sweep",
    },
    "cifar_lightning/suggestion.py": set(),
    "cifar_lightning/trusted_classes.py": {
        "torch", "cifar_onnx", OURS + "augment", OURS + "mix", OURS + "data", OURS + "checkpoint", OURS + "suggestion",
    },
    "cifar_lightning/nets": {
        "torch", "torchvision", "timm", "safetensors", "cifar_onnx.errors", OURS + "error_source", OURS + "nets",
        OURS + "suggestion",
    },
    "cifar_lightning/augment.py": {"torch", "torchvision", "cifar_onnx.errors"},
    "cifar_lightning/mix.py": {"torch", "torchvision", "cifar_onnx.errors", OURS + "augment"},
    "cifar_lightning/batch.py": {"torch"},
    "cifar_lightning/error_source.py": {"cifar_onnx"},
    "cifar_lightning/outputs.py": {"torch", "cifar_onnx", OURS + "error_source"},
    "cifar_lightning/loss.py": {"torch", "cifar_onnx.errors"},
    "cifar_lightning/optim.py": {"torch"},
    "cifar_lightning/data": {
        "torch", "lightning", "torchvision", "numpy", "PIL", "sklearn", "scipy", "filelock", "psutil",
        "cifar_onnx", OURS + "augment", OURS + "batch", OURS + "mix", OURS + "data", OURS + "files",
    },
    "cifar_lightning/module.py": {
        "torch", "lightning", "cifar_onnx", OURS + "batch", OURS + "finite", OURS + "metrics", OURS + "nets.normalize",
        OURS + "nets.whitening", OURS + "recipe", OURS + "familiarity", OURS + "loss", OURS + "initial_weights",
    },
    "cifar_lightning/metrics.py": {"torch", "torchmetrics", OURS + "recipe"},
    "cifar_lightning/initial_weights.py": {"torch", "cifar_onnx.errors", OURS + "nets", OURS + "checkpoint"},
    "cifar_lightning/recipe.py": {"torch", "lightning", "cifar_onnx", OURS + "optim"},
    "cifar_lightning/trained.py": {
        "torch", "lightning", "cifar_onnx", OURS + "module", OURS + "cli.parser", OURS + "trusted_classes",
        OURS + "checkpoint",
    },
    "cifar_lightning/distill.py": {"torch", "cifar_onnx", OURS + "loss", OURS + "module", OURS + "trained"},
    "cifar_lightning/finite.py": {"torch", "lightning", OURS + "async_copy"},
    "cifar_lightning/async_copy.py": {"torch"},
    "cifar_lightning/callbacks": {
        "lightning", "torch", "torch_pruning", "cifar_onnx", OURS + "interruption", OURS + "async_copy",
        OURS + "batch", OURS + "callbacks", OURS + "data.batches", OURS + "nets.weights", OURS + "files", OURS + "runs",
        OURS + "trained", OURS + "error_source", OURS + "checkpoint",
    },
    "cifar_lightning/sweep": {
        "optuna", "sqlalchemy", "lightning", "torch", "jsonargparse", "filelock", "rich", "numpy", "matplotlib",
        "cifar_onnx", OURS + "cli", OURS + "module", OURS + "finite", OURS + "interruption",
        OURS + "files", OURS + "sweep", OURS + "leaderboard.differences", OURS + "runs", OURS + "suggestion",
        OURS + "callbacks", OURS + "error_source", OURS + "trusted_classes",
    },
    "cifar_lightning/interruption.py": set(),
    "cifar_lightning/malloc.py": set(),
    "cifar_lightning/files.py": {"cifar_onnx"},
    "cifar_lightning/runs.py": {"filelock", "cifar_onnx", OURS + "files"},
    "cifar_lightning/leaderboard": {
        "yaml", "rich", "cifar_onnx", OURS + "files", OURS + "leaderboard", OURS + "suggestion", OURS + "runs",
    },
    "cifar_lightning/export": {
        "torch", "onnx", "onnxruntime", "numpy", "PIL", "cifar_onnx", OURS + "calibration",
        OURS + "data", OURS + "error_source", OURS + "export", OURS + "familiarity", OURS + "files", OURS + "module",
        OURS + "nets.zoo", OURS + "outputs",
    },
    "cifar_lightning/export/cam.py": {"onnx"},
    "cifar_lightning/export/capture.py": {
        "torch", "cifar_onnx", OURS + "familiarity", OURS + "error_source", OURS + "export.silence",
    },
    "cifar_lightning/export/graph.py": {"torch", "onnx", "onnx_ir", "cifar_onnx", OURS + "export"},
    "cifar_lightning/export/nodes.py": {"numpy", "onnx"},
    "cifar_lightning/export/quantize.py": {
        "numpy", "onnx", "onnx_ir", "onnxruntime", "cifar_onnx", OURS + "export.errors", OURS + "export.silence",
        OURS + "export.zero_points",
    },
    "cifar_lightning/export/silence.py": set(),
    "cifar_lightning/export/zero_points.py": {"numpy", "onnx"},
    "cifar_lightning/export/model_card.py": {"yaml", "cifar_onnx"},
    "cifar_lightning/export/triton_server.py": {"cifar_onnx", OURS + "files"},
    "cifar_lightning/checkpoint.py": {
        "torch", "lightning.fabric", "cifar_onnx", OURS + "files", OURS + "runs",
    },
    "cifar_lightning/reproduce.py": {
        "torch", "cifar_onnx", OURS + "checkpoint", OURS + "cli.command", OURS + "leaderboard.differences",
        OURS + "runs", OURS + "trusted_classes",
    },
    "cifar_lightning/familiarity.py": {"torch", "numpy", "cifar_onnx"},
    "cifar_lightning/calibration.py": {
        "torch", "numpy", "scipy", "cifar_onnx", OURS + "data.images", OURS + "familiarity", OURS + "temperature",
    },
    "cifar_lightning/temperature.py": {"numpy", "scipy", "cifar_onnx"},
    "cifar_lightning/evaluation.py": {
        "torch", "lightning", "numpy", "cifar_onnx", OURS + "attacks", OURS + "calibration", OURS + "data",
        OURS + "familiarity", OURS + "files", OURS + "module", OURS + "runs",
    },
    "cifar_lightning/attacks.py": {"torch", "numpy", "cifar_onnx"},
    "export/cifar_onnx": {"numpy", "PIL", "onnxruntime", "cifar_onnx"},
    "export/cifar_onnx/progress.py": {"rich"},
    "export/cifar_onnx/evaluation": {
        "numpy", "PIL", "onnxruntime", "sklearn", "scipy", "jinja2", "cifar_onnx",
    },
    "export/cifar_onnx/serving": {
        "numpy", "fastapi", "starlette", "pydantic", "uvicorn", "python_multipart", "prometheus_client",
        "cifar_onnx",
    },
}  # fmt: skip


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            assert node.module
            folder = ROOT / node.module.replace(".", "/")  # of a package, whose modules are imported from it
            for alias in node.names:
                whole = node.module == "cifar_lightning" or (folder / f"{alias.name}.py").exists()
                names.add(f"{node.module}.{alias.name}" if whole else node.module)
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("place", LAW)
def test_modules_import_only_what_the_law_allows(place: str) -> None:
    path = ROOT / place
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    nearer = [ROOT / other for other in LAW if other.startswith(f"{place}/")]
    files = [file for file in files if not any(file.is_relative_to(each) for each in nearer)]
    assert files
    used = set()
    for file in files:
        for name in imported(file):
            allowed = {law for law in LAW[place] if name == law or name.startswith(law + ".")}
            assert allowed, f"{file.relative_to(ROOT)} must not import {name}"
            used |= allowed
    assert LAW[place] == used, f"{place} imports none of {LAW[place] - used}"


def test_the_law_is_for_every_module() -> None:
    for package in ("cifar_lightning", "export/cifar_onnx"):
        for file in (ROOT / package).rglob("*.py"):
            covered = any(file.is_relative_to(ROOT / place) for place in LAW)
            assert covered or not imported(file), f"the law says nothing of {file.relative_to(ROOT)}"


def declared(project: Path, extras: Collection[str]) -> set[str]:
    settings = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    lines = sum((settings["optional-dependencies"][each] for each in extras), settings["dependencies"])
    return {settings["name"], *(canonicalize_name(Requirement(line).name) for line in lines)}


def test_each_package_declares_what_it_imports() -> None:
    distributions = packages_distributions()
    asked = {"safetensors"}  # an InputError says how to install it
    own = declared(ROOT, ("timm", "sweep", "prune", "tensorboard")) | declared(ROOT / "export", ("evaluate",))
    below = declared(ROOT / "export", ("evaluate", "serve"))
    for package, known in {"export/cifar_onnx": below, "cifar_lightning": own}.items():
        for file in (ROOT / package).rglob("*.py"):
            for name in imported(file):
                top = name.split(".")[0]
                names = {canonicalize_name(each) for each in distributions.get(top, [top])}
                assert names & (known | asked), f"{file.relative_to(ROOT)} imports {name}, which is not declared"


def test_the_packages_are_of_one_version() -> None:
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (own,) = (each for each in map(Requirement, lines) if each.name == "cifar-onnx")
    assert str(own.specifier) == f"=={cifar_lightning.__version__}" == f"=={cifar_onnx.__version__}"


def test_training_loads_neither_onnx_nor_scikit_learn(tmp_path: Path) -> None:
    """They take time, and only the digits, and what is exported or judged, need them."""
    words = ["fit", "--model.net.widths", "[4]", "--trainer.fast_dev_run", "true"]
    source = ["--data", "ImageFolder", "--data.root", str(tmp_path / "photos")]
    make_photos(tmp_path / "photos", 4)
    code = (
        f"import sys; from cifar_lightning.main import main; assert main({words + source}) == 0; "
        "print('LOADED', *sorted({'onnx', 'sklearn'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert out.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["fit", "--help"], ["sweep", "--help"]])
def test_help_and_version_load_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from cifar_lightning.__main__ import main; "
        f"assert main({words}) == 0; print('LOADED', *sorted({HEAVY} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "LOADED"
    assert (
        "cifar-lightning 0." in out or f"python -m cifar_lightning {'fit' if words[0][0] == '-' else words[0]}" in out
    )


def test_importing_a_data_source_does_not_import_torchvision_datasets() -> None:
    for file in (ROOT / "cifar_lightning").rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom | ast.Import):
                assert "torchvision" not in ast.unparse(node), f"{file}: import torchvision where it is used"
