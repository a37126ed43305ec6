"""The command line: exit codes, and the sentence that is printed with each of them."""

import errno
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import yaml
from filelock import Timeout
from jsonargparse import Path as ConfigFile  # type: ignore[attr-defined]
from jsonargparse import set_dumper, set_loader
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cifar_lightning import interruption
from cifar_lightning.cli.config_file import dump_yaml, load_yaml
from cifar_lightning.cli.run import run
from cifar_lightning.error_source import REFUSED, mistake, out_of_memory
from cifar_lightning.export import ParityError
from cifar_lightning.finite import NotFiniteError
from cifar_lightning.interruption import Interrupted
from cifar_lightning.reproduce import reproduce
from cifar_lightning.sweep import sweep
from cifar_onnx import InputError
from cifar_onnx.errors import one_line
from cifar_onnx.shell import discard_output, pipe_closed

# What Lightning warns of although all is well.
_NOISE = (
    "`isinstance.treespec, LeafSpec.` is deprecated",  # by torch 2.10, in Lightning's own code
    "The number of training batches",  # is smaller than the logging interval: steps are not logged
    "LightningCLI's args parameter",  # is given the words of the command line in another order
    "Be aware that when using `ckpt_path`, callbacks",  # that wrote it are needed: not for its weights
    "The dirpath has changed",  # a run resumed from a file has a folder of its own
    "Experiment logs directory",  # of a run that goes on: its metrics are kept
    "Checkpoint directory",  # likewise
    ".*could not find the monitored key",  # where nothing was validated, which the last line says
    "Image size .* exceeds limit",  # Pillow's; pictures have a limit of their own here, and it says so
)

# What the machine refuses, or what is not there.
_OUTSIDE = (
    *REFUSED,
    errno.ENOLCK,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,  # on macOS another number
    errno.ENOMEM,
    errno.ENOENT,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
)


def _not_advertising(record: logging.LogRecord) -> bool:
    # Its tips are for other products; the latter advises lower precision (TF32), for which no command has an option.
    return not any(words in record.getMessage() for words in ("Tip:", "has Tensor Cores"))


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        Its exit code: 0 done, 1 refused by a check, 2 a mistake in what was given, 3 not finite, 130, 143 and 149
        stopped by SIGINT, SIGTERM and Windows' SIGBREAK.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_not_advertising)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of rotten EXIF, for one, which turns no picture
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    set_loader("yaml", load_yaml, (yaml.YAMLError,))
    set_dumper("yaml", dump_yaml)
    # jsonargparse reads config files in the encoding of the locale, on Windows not UTF-8, and has no setting for it.
    ConfigFile.read_text = lambda self: Path(self.absolute).read_text(encoding="utf-8")  # type: ignore[method-assign]
    try:
        with interruption.handled():
            words = sys.argv[1:] if args is None else args
            if words[:1] == ["reproduce"]:
                return reproduce(words[1:], lambda rest: run(["fit", *rest]).run)
            if words[:1] == ["sweep"]:
                sweep(words[1:])
            else:
                run(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    except Interrupted as stop:
        return _fail(str(stop), stop.exit_code)
    except NotFiniteError as error:
        return _fail(str(error), 3)
    except ParityError as error:
        return _fail(str(error), 1)
    except (InputError, MisconfigurationException) as error:
        smaller = " Or take smaller batches: --data.batch_size." if "limit_train_batches" in str(error) else ""
        return _fail(f"{error}{smaller}", 2)
    except Timeout as error:
        return _fail(f"another process is using this folder (lock file {error.lock_file})", 2)
    except (ImportError, SyntaxError) as error:  # of a class that a config or checkpoint names
        missing = isinstance(error, ModuleNotFoundError) and error.name  # Lightning raises it, nameless, with advice
        advice = ": if it is your own, name a config file beside it, or that of the run, with --config"
        return _fail(f"{type(error).__name__}: {error}{advice if missing else ''}", 2)
    except OSError as error:
        if pipe_closed(error):
            discard_output()
            return _fail("standard output was closed before the end", 2)
        if error.errno not in _OUTSIDE and not error.filename:
            raise
        return _fail(f"{error.filename or 'a file'} cannot be read or written: {error.strerror}", 2)
    except (MemoryError, RuntimeError, ValueError) as error:
        if out_of_memory(error):
            # The sentences after the first two say how torch shares memory out.
            sentences = (one_line(error) or "MemoryError").split(". ")[:2]
            pictures = "smaller pictures (--data.image_size of ImageFolder and ImageNet)"
            less = f"take smaller batches (--data.batch_size), {pictures} or a smaller net"
            return _fail(f"not enough memory ({'. '.join(sentences).rstrip('.')}): {less}", 2)
        if "no kernel image is available" in str(error):  # and torch.cuda.is_available() all the same
            remedy = "install one that has (https://pytorch.org/get-started/locally), or add --trainer.accelerator cpu"
            return _fail(f"this PyTorch has no code for this GPU: {remedy}", 2)
        if not mistake(error):
            raise
        return _fail(one_line(error), 2)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
