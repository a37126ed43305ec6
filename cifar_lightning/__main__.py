"""`python -m cifar_lightning`: answers help and version itself, and loads PyTorch only for a command that needs it."""

import sys
from collections.abc import Sequence

from cifar_lightning import __version__

USAGE = """\
Train image classifiers and export them as one ONNX file that anybody can run.

  python -m cifar_lightning fit [--config configs/X.yaml]   train; without a config the tutorial's CNN on CIFAR-10
  python -m cifar_lightning validate --ckpt_path P          metrics on the validation set
  python -m cifar_lightning test --ckpt_path P              metrics on the test set
  python -m cifar_lightning predict --ckpt_path P           predictions to a CSV file
  python -m cifar_lightning export --ckpt_path P            write model.onnx, proven equal to the checkpoint
  python -m cifar_lightning verify model.onnx --against P   compare the file with the checkpoint on this machine
  python -m cifar_lightning reproduce runs/X/version_N      train it again: are the weights the same?
  python -m cifar_lightning runs [DIR]                      which run is best, and what differs between them
  python -m cifar_lightning sweep --config configs/sweeps/X.yaml   search hyper-parameters, on validation only

  python -m cifar_lightning COMMAND --help                  every option of a command
  python -m cifar_lightning --version

What receives model.onnx needs no PyTorch: python -m cifar_onnx --help
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: see `cifar_lightning.main.main`."""
    words = sys.argv[1:] if args is None else args
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"cifar-lightning {__version__}")
        return 0
    try:
        if words[0] == "runs":
            from cifar_lightning.leaderboard.command import main as runs

            return runs(words[1:])
        from cifar_lightning.main import main as run

        return run(args)
    except KeyboardInterrupt:  # before anything was begun
        return 130


if __name__ == "__main__":
    sys.exit(main())
