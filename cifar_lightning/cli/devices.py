"""Devices: which are taken, and what is slow on them and need not be."""

import os
import shutil

import torch
from jsonargparse import Namespace

from cifar_lightning.cli.command import say


def one_device(config: Namespace) -> list[int] | int:
    """The first of the devices that are named, as in [1], if this machine has it, for what needs one; else any one."""
    named, gpus = config.trainer.devices, torch.cuda.device_count() if config.trainer.accelerator != "cpu" else 0
    return named[:1] if isinstance(named, list) and named[:1] < [gpus] else 1


def advise(accelerator: str, precision: str, device: torch.device) -> None:
    """Tell of a GPU that is not used though it might be, and of numbers that are slow on a device.

    Args:
        accelerator: the Trainer's, as it was asked for.
        precision: likewise.
        device: where training will be.
    """
    for line in (_unused(accelerator, device), _slow(precision, device)):
        if line:
            say(line)


def _unused(accelerator: str, device: torch.device) -> str | None:
    """Of a GPU of NVIDIA's that is not hidden on purpose, and that this PyTorch cannot use."""
    if accelerator != "auto" or device.type != "cpu" or "CUDA_VISIBLE_DEVICES" in os.environ:
        return None
    if not shutil.which("nvidia-smi"):
        return None
    cuda = torch.version.cuda
    why = f"'s CUDA {cuda} may need a newer one, or a newer GPU" if cuda else " is built without CUDA"
    return (
        f"training on the CPU: there is an NVIDIA driver, but this PyTorch{why}: "
        "see https://pytorch.org/get-started/locally"
    )


def _slow(precision: str, device: torch.device) -> str | None:
    """Of bfloat16 where there are no instructions for it, which takes several times as long as in float32.

    On CPUs it is x86 that is looked at, and of GPUs those of NVIDIA (Ampere, of 2020, is the first to have them).
    """
    if not precision.startswith("bf16"):
        return None
    if device.type == "cpu" and not torch.cpu.get_capabilities().get("avx512_bf16", True):  # others have other names
        slow, remedy = "CPU", "32-true"
    elif device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        slow, remedy = "GPU", "16-mixed"
    else:
        return None
    return f"trainer.precision {precision} is slower than {remedy} on this {slow}, which has no instructions for it"
