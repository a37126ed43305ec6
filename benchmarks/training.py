"""The same work by several programs: epochs of the tutorial's CNN, batch 64, Adam; on the GPU where there is one.

python benchmarks/training.py [--data DIR]: a table from one run. The programs take turns, each in a process of its own,
with epochs of 4,800 images, whose steps are timed. The fastest epoch of each counts, since other work on the machine
can only slow it, and is scaled to the 50,000 images of CIFAR-10. Keras needs .venv-peers (make bench installs it).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import torch
from bench import DATA, PEERS, TUTORIAL_FLOPS, answers, machine, noise, now, pictures, show
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cifar_lightning import malloc
from cifar_lightning.data import ImageData
from cifar_lightning.data.images import Images, Part
from cifar_lightning.main import main as command
from cifar_lightning.nets import CNN

TURNS, EPOCHS, IMAGES, BATCH = 2, 3, 4_800, 64
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def plain_net() -> nn.Sequential:
    """The tutorial's CNN as one writes it down."""
    blocks = [
        layer
        for i, o in ((3, 32), (32, 64), (64, 128))
        for layer in (nn.Conv2d(i, o, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2))
    ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(2048, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))


def read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8 `(N, 32, 32, 3)`, and their labels."""
    with np.load(path) as data:
        return torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])


def say(seconds: list[float], steps: int) -> None:
    """Print what each epoch took, if it had as many steps as it should have."""
    assert steps == EPOCHS * IMAGES // BATCH, steps
    print(json.dumps(seconds))


def loop(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """A bare loop over uint8 `(N, 3, 32, 32)` in memory."""
    net, images, labels = net.to(DEVICE), images.to(DEVICE), labels.to(DEVICE)
    optimizer, loss, seconds, steps = torch.optim.Adam(net.parameters()), nn.CrossEntropyLoss(), [], 0
    for _ in range(EPOCHS):
        start = now()
        order = torch.randperm(len(images), device=DEVICE)
        for some in order.split(BATCH):
            optimizer.zero_grad()
            loss(net(images[some].float() / 255), labels[some]).backward()
            optimizer.step()
            steps += 1
        seconds.append(now() - start)
    say(seconds, steps)


def bare(path: Path) -> None:
    """A newcomer's loop."""
    images, labels = read(path)
    loop(plain_net(), images.permute(0, 3, 1, 2).contiguous(), labels)


def bare_ours(path: Path) -> None:
    """The same loop with this project's net and memory: `fit` has Lightning and this project's callbacks besides."""
    malloc.keep()
    images, labels = read(path)
    loop(CNN().to(memory_format=torch.channels_last), images.permute(0, 3, 1, 2), labels)  # channels last in memory


class Epochs(L.Callback):
    """The seconds that the steps of each epoch take."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.start = now()

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.is_last_batch:
            self.seconds.append(now() - self.start)

    def on_fit_end(self, trainer: L.Trainer, *_: object) -> None:
        say(self.seconds, trainer.global_step)


def lightning(path: Path) -> None:
    """Lightning as its introduction shows it: torchvision's transforms, a DataLoader, a loss logged each step."""
    from torchvision import transforms

    images, labels = read(path)
    convert = transforms.Compose([transforms.ToPILImage(), transforms.ToTensor()])

    class Pictures(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return convert(images[index].numpy()), int(labels[index])

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain_net()

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
            value = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", value)
            return value

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    trainer = L.Trainer(
        max_epochs=EPOCHS, accelerator="auto", devices=1, callbacks=[Epochs()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(Pictures(), BATCH, shuffle=True, num_workers=1))


class Memory(ImageData):
    """The images of a file, all of them to learn from, and one batch of them to be judged by."""

    def __init__(self, path: str) -> None:
        super().__init__(BATCH)
        self.path = Path(path)

    @property
    def classes(self) -> list[str]:
        return list("0123456789")

    @property
    def given(self) -> frozenset[Part]:
        return frozenset({"train", "val", "test"})

    def load(self, part: Part) -> Images:
        images, labels = (each[: None if part == "train" else BATCH].numpy() for each in read(self.path))
        return Images(images, labels, list(map(str, range(len(labels)))))


def ours(path: Path, precision: str = "32-true") -> None:
    """`fit` as it is, with all that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        source = ["--data", "training.Memory", "--data.path", str(path)]
        timed = ["--trainer.max_epochs", str(EPOCHS), "--trainer.callbacks+", "training.Epochs"]
        words = [*source, *timed, "--trainer.precision", precision, "--trainer.default_root_dir", folder]
        assert command(["fit", *words]) == 0


PROGRAMS: dict[str, Callable[[Path], None]] = {
    "lightning, torchvision, DataLoader": lightning,
    "bare loop": bare,
    "bare loop with our net and memory": bare_ours,
    "cifar_lightning fit": ours,
}
if DEVICE.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16"):  # elsewhere it is several times slower
    PROGRAMS["cifar_lightning fit, bf16-mixed"] = partial(ours, precision="bf16-mixed")


def main() -> None:
    """Run the programs and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--program", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        PROGRAMS[options.program](options.data)
        return
    data = pictures(options.data) if options.data.is_dir() else noise()
    data |= {key: data[key][:IMAGES] for key in ("images", "labels")}
    commands: dict[str, list[object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npz")
        np.savez(path, **data)  # type: ignore[arg-type]
        if PEERS.exists():
            commands["Keras (CPU)"] = [PEERS, "benchmarks/peers/keras_cnn.py", "train", path, EPOCHS]
        commands |= {name: [sys.executable, __file__, "--data", path, "--program", name] for name in PROGRAMS}
        turns = [{name: answers(command)[-1] for name, command in commands.items()} for _ in range(TURNS)]
    best = {name: IMAGES / min(second for turn in turns for second in turn[name]) for name in commands}
    print(machine())
    first = next(iter(best))
    rows = []
    for name, rate in best.items():
        gflops = rate * TUTORIAL_FLOPS / 1e9
        rows.append([name, f"{50_000 / rate:.1f}", f"{rate:,.0f}", f"{gflops:.0f}", f"{best[first] / rate:.2f}"])
    show(["one epoch of the tutorial's CNN", "s", "images/s", "GFLOP/s", f"of {first}"], rows)
    tax = best["bare loop with our net and memory"] / best["cifar_lightning fit"]
    print(f"Lightning and our callbacks: fit takes {tax:.2f} of the bare loop with our net and memory")


if __name__ == "__main__":
    main()
