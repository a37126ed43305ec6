"""How long people wait before anything happens: imports, the first answer, the first training step.

python benchmarks/startup.py: medians of three fresh processes each; seconds, and megabytes of memory at
the end.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import ROOT, answers, machine, show

from cifar_onnx import contract

ROUNDS = 3
MODEL = ROOT / "export" / "tests" / "digits.onnx"
# The peak of this process alone: getrusage counts what its parent had, too.
MEMORY = "m = [line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1]"
TIMED = f"import time; s = time.perf_counter(); {{}}; t = time.perf_counter() - s; {MEMORY}; print([t, int(m) / 1024])"
FIRST_STEP = (
    "import lightning.pytorch as L; from cifar_lightning.main import main; i = time.perf_counter() - s; "
    "L.LightningModule.on_train_batch_start = lambda *_: print('[%f, %f]' % (time.perf_counter() - s, i)) or -1; "
    "main(['fit', '--config', 'configs/quickstart.yaml', '--trainer.max_epochs', '1', "
    "'--trainer.default_root_dir', {!r}])"
)


def main() -> None:
    """Measure and print."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, "photo.png")
        photo.write_bytes(contract.read(MODEL)[1].golden[0].encoded)
        for name, work in {
            "import numpy, PIL, onnxruntime": "import numpy, PIL.Image, onnxruntime",
            "import cifar_onnx": "import cifar_onnx",
            "import torch": "import torch",
            "import lightning.pytorch": "import lightning.pytorch",
        }.items():
            found = [answers([sys.executable, "-c", TIMED.format(work)])[-1] for _ in range(ROUNDS)]
            seconds, memory = (statistics.median(each) for each in zip(*found, strict=True))
            rows.append([name, f"{seconds:.2f}", f"{memory:.0f}"])
        commands: dict[str, list[object]] = {
            "python -m cifar_onnx classify photo.png": ["-m", "cifar_onnx", "classify", "--model", MODEL, photo],
            "python -m cifar_lightning --help": ["-m", "cifar_lightning", "--help"],
        }
        for name, words in commands.items():
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                answers([sys.executable, *words])
                times.append(time.perf_counter() - start)
            rows.append([name, f"{statistics.median(times):.2f}", ""])
        code = f"import time; s = time.perf_counter(); {FIRST_STEP.format(folder)}"
        found = [answers([sys.executable, "-c", code])[0] for _ in range(ROUNDS)]
        first, imports = (statistics.median(each) for each in zip(*found, strict=True))
        rows.append(["fit until its first step", f"{first:.2f}", ""])
        rows.append(["  of it imports", f"{imports:.2f}", ""])
    print(machine())
    show(["", "s", "MB"], rows)


if __name__ == "__main__":
    main()
