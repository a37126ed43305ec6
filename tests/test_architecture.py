"""Who may import what, and what a help text may load."""

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
HEAVY = {
    *("torch", "torchvision", "lightning", "torchmetrics", "onnx", "onnxruntime"),
    *("numpy", "rich", "sklearn", "scipy", "matplotlib", "jinja2", "fastapi"),
}
OURS = "cifar_lightning."

# Module or folder -> what it may import, of third parties and of this package.
LAW = {
    "cifar_lightning/__main__.py": {OURS + "__version__", OURS + "usage", OURS + "main", OURS + "leaderboard"},
    "cifar_lightning/usage.py": set(),
    "cifar_lightning/suggestion.py": set(),
    "cifar_lightning/nets": {
        "torch", "torchvision", "timm", "safetensors", "cifar_onnx.errors", OURS + "nets", OURS + "suggestion",
    },
    "cifar_lightning/augment.py": {"torch", "torchvision", "cifar_onnx.errors"},
    "cifar_lightning/mix.py": {"torch", "torchvision", "cifar_onnx.errors", OURS + "augment"},
    "cifar_lightning/batch.py": {"torch"},
    "cifar_lightning/culprit.py": {"cifar_onnx"},
    "cifar_lightning/loss.py": {"torch", "cifar_onnx.errors"},
    "cifar_lightning/optim.py": {"torch"},
    "cifar_lightning/data": {
        "torch", "lightning", "torchvision", "numpy", "PIL", "sklearn", "scipy", "filelock", "psutil",
        "threadpoolctl", "cifar_onnx", OURS + "augment", OURS + "batch", OURS + "mix", OURS + "data",
    },
    "cifar_lightning/module.py": {
        "torch", "lightning", "cifar_onnx", OURS + "batch", OURS + "finite", OURS + "measured", OURS + "nets.pixels",
        OURS + "nets.whitening", OURS + "recipe", OURS + "familiarity", OURS + "loss", OURS + "transfer",
    },
    "cifar_lightning/measured.py": {"torch", "torchmetrics", OURS + "recipe"},
    "cifar_lightning/transfer.py": {"torch", "cifar_onnx.errors", OURS + "nets", OURS + "checkpoint"},
    "cifar_lightning/recipe.py": {"torch", "lightning", "cifar_onnx", OURS + "optim"},
    "cifar_lightning/trained.py": {
        "torch", "lightning", "cifar_onnx", OURS + "module", OURS + "parser", OURS + "trust", OURS + "checkpoint",
    },
    "cifar_lightning/distill.py": {"torch", "cifar_onnx", OURS + "loss", OURS + "module", OURS + "trained"},
    "cifar_lightning/settings.py": {
        "torch", "lightning", "jsonargparse", "cifar_onnx", OURS + "callbacks", OURS + "module",
    },
    "cifar_lightning/dry_run.py": {
        "torch", "cifar_onnx", OURS + "batch", OURS + "culprit", OURS + "data", OURS + "module",
    },
    "cifar_lightning/finite.py": {"torch", "lightning", OURS + "arrival"},
    "cifar_lightning/arrival.py": {"torch"},
    "cifar_lightning/command.py": {"lightning", "yaml", "cifar_onnx", OURS + "parser", OURS + "runs"},
    "cifar_lightning/callbacks": {
        "lightning", "torch", "torch_pruning", "cifar_onnx", OURS + "interruption", OURS + "arrival",
        OURS + "batch", OURS + "callbacks", OURS + "nets.weights", OURS + "command", OURS + "files", OURS + "runs",
        OURS + "trained", OURS + "culprit", OURS + "checkpoint",
    },
    "cifar_lightning/sweep": {
        "optuna", "sqlalchemy", "lightning", "torch", "jsonargparse", "yaml", "filelock", "rich", "numpy", "matplotlib",
        "cifar_onnx", OURS + "main", OURS + "cli", OURS + "command", OURS + "parser", OURS + "settings",
        OURS + "module", OURS + "finite", OURS + "interruption", OURS + "files", OURS + "sweep",
        OURS + "leaderboard.differences", OURS + "runs", OURS + "suggestion", OURS + "callbacks", OURS + "culprit",
        OURS + "trust",
    },
    "cifar_lightning/interruption.py": set(),
    "cifar_lightning/malloc.py": set(),
    "cifar_lightning/files.py": {"cifar_onnx"},
    "cifar_lightning/runs.py": {"filelock", "cifar_onnx", OURS + "files"},
    "cifar_lightning/leaderboard": {
        "yaml", "rich", "cifar_onnx", OURS + "files", OURS + "leaderboard", OURS + "suggestion", OURS + "runs",
    },
    "cifar_lightning/graph.py": {"torch", "onnx", "onnx_ir", "cifar_onnx", OURS + "cam", OURS + "capture"},
    "cifar_lightning/capture.py": {"torch", "cifar_onnx", OURS + "familiarity", "cifar_lightning"},
    "cifar_lightning/cam.py": {"onnx"},
    "cifar_lightning/export.py": {
        "torch", "onnx", "numpy", "PIL", "cifar_onnx", OURS + "graph", OURS + "parity",
        OURS + "familiarity", OURS + "calibration", OURS + "quantize", OURS + "data.images",
    },
    "cifar_lightning/parity.py": {
        "torch", "onnx", "onnxruntime", "numpy", "cifar_onnx", OURS + "data.images", OURS + "familiarity",
        OURS + "calibration", OURS + "quantize", OURS + "graph", OURS + "nets.zoo",
    },
    "cifar_lightning/checkpoint.py": {
        "torch", "lightning.fabric", "jsonargparse", "cifar_onnx", OURS + "data", OURS + "files", OURS + "runs",
    },
    "cifar_lightning/trust.py": {
        "torch", "cifar_onnx", OURS + "augment", OURS + "mix", OURS + "data", OURS + "checkpoint",
    },
    "cifar_lightning/model_card.py": {"yaml", "cifar_onnx"},
    "cifar_lightning/triton_server.py": {"cifar_onnx"},
    "cifar_lightning/reproduce.py": {"torch", "cifar_onnx", OURS + "checkpoint", OURS + "command", OURS + "runs"},
    "cifar_lightning/quantize.py": {"numpy", "onnx", "onnx_ir", "onnxruntime", "cifar_onnx"},
    "cifar_lightning/familiarity.py": {"torch", "numpy"},
    "cifar_lightning/calibration.py": {
        "torch", "numpy", "scipy", "cifar_onnx", OURS + "data.images", OURS + "familiarity",
    },
    "cifar_lightning/parser.py": {
        "torch", "lightning", "yaml", "jsonargparse", OURS + "augment", OURS + "mix", OURS + "data",
        OURS + "suggestion",
    },
    "cifar_lightning/evaluation.py": {
        "torch", "lightning", "numpy", "cifar_onnx", OURS + "attacks", OURS + "calibration", OURS + "data",
        OURS + "familiarity", OURS + "module", OURS + "checkpoint", OURS + "runs",
    },
    "cifar_lightning/attacks.py": {"torch", "numpy", "cifar_onnx"},
    "export/cifar_onnx": {"numpy", "PIL", "onnxruntime", "cifar_onnx"},
    "export/cifar_onnx/progress.py": {"rich"},
    "export/cifar_onnx/evaluation": {
        "numpy", "PIL", "onnxruntime", "sklearn", "scipy", "threadpoolctl", "jinja2", "cifar_onnx",
    },
    "export/cifar_onnx/serving": {
        "numpy", "PIL", "fastapi", "starlette", "pydantic", "uvicorn", "python_multipart", "prometheus_client",
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
            package = node.module == "cifar_lightning"  # which its modules are imported from
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if package else {node.module}
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("place", LAW)
def test_modules_import_only_what_the_law_allows(place: str) -> None:
    path = ROOT / place
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    nearer = [ROOT / other for other in LAW if other.startswith(f"{place}/")]
    files = [file for file in files if not any(file.is_relative_to(each) for each in nearer)]
    assert files
    for file in files:
        for name in imported(file):
            allowed = any(name == law or name.startswith(law + ".") for law in LAW[place])
            assert allowed, f"{file.relative_to(ROOT)} must not import {name}"


def declared(project: Path) -> set[str]:
    settings = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    lines = sum(settings["optional-dependencies"].values(), settings["dependencies"])
    return {settings["name"], *(canonicalize_name(Requirement(line).name) for line in lines)}


def test_each_package_declares_what_it_imports() -> None:
    distributions = packages_distributions()
    asked = {"safetensors"}  # an InputError says how to install it
    below = declared(ROOT / "export")
    for package, known in {"export/cifar_onnx": below, "cifar_lightning": declared(ROOT) | below}.items():
        for file in (ROOT / package).rglob("*.py"):
            for name in imported(file):
                top = name.split(".")[0]
                names = {canonicalize_name(each) for each in distributions.get(top, [top])}
                assert names & (known | asked), f"{file.relative_to(ROOT)} imports {name}, which is not declared"


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
