"""Several processes train as one, with gloo on the CPU."""

import csv
import os
import signal
import socket
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import runs
from cifar_lightning.data.batches import Batches
from tests.conftest import Child, Run, Start, command_line
from tests.test_resume import digest, place, stop_at, weights

# In double precision rounding does not hide a difference. 63 images a step: shares of 32 and 31, and a rest of 26.
WORDS = (
    *("fit", "--data", "Digits", "--trainer.accelerator", "cpu", "--trainer.max_epochs", 2),
    *("--model.net.widths", "[4,4]", "--model.net.hidden", 8, "--model.net.dropout", 0),
    *("--trainer.precision", "64-true"),
)
TWO = ("--trainer.devices", 2, "--trainer.strategy", "ddp")


class Rank:
    """A command as one of two processes that torchrun has started; picklable."""

    def __init__(self, rank: int, port: int, stop: int | None = None) -> None:
        self.rank, self.port, self.stop = rank, port, stop

    def __call__(self, *words: object) -> int:
        os.environ |= {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_RUN_ID": "test",
        }
        rank_zero_only.rank = self.rank  # which Lightning has looked up when it was imported
        if self.stop is not None:
            return stop_at(self.stop, signal.SIGTERM)(*words)
        return command_line(*map(str, words))


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def pair(start: Start, folder: Path, *words: object, stop: int | None = None) -> list[Child]:
    """Both processes of a run; the signal comes to the second alone."""
    port = free_port()
    ranks = [Rank(0, port), Rank(1, port, stop)]
    return [start(*WORDS, *TWO, *words, function=rank, folder=folder) for rank in ranks]


def metrics(folder: Path) -> list[dict[str, float]]:
    with (folder / "runs/cnn/version_0/metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def alone(start_for_all: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one process with the batches of both."""
    folder = tmp_path_factory.mktemp("alone")
    result = start_for_all(*WORDS, "--data.batch_size", 64, folder=folder).wait()
    assert result.code == 0, result.err
    return folder


def same(folder: Path, alone: Path) -> None:
    for got, expected in zip(metrics(folder), metrics(alone), strict=True):
        assert got == pytest.approx(expected, rel=1e-6)
    path = "runs/cnn/version_0/checkpoints/last.ckpt"
    states = [checkpoints.load(each / path)["state_dict"] for each in (folder, alone)]
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, rtol=1e-6, atol=1e-9)
    facts = [runs.facts(each / "runs/cnn/version_0") for each in (folder, alone)]
    for name in ("parameters", "validation_images"):
        assert facts[0][name] == facts[1][name]


class Average(L.Callback):
    """Leaves a digest of what each process has averaged, which is in the place of the weights in the end."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        Path(f"average-{trainer.global_rank}").write_text(digest(pl_module.state_dict()))


class TestTwoProcesses:
    def test_they_give_what_one_gives_with_their_batches(self, start: Start, alone: Path, tmp_path: Path) -> None:
        folder = place(tmp_path, "two")
        for child in pair(start, folder, "--data.batch_size", 32):
            result = child.wait()
            assert result.code == 0, result.err
        same(folder, alone)
        assert [path.name for path in (folder / "runs/cnn").iterdir()] == ["version_0"]

    @pytest.mark.slow
    def test_so_does_the_plain_command(self, alone: Path, tmp_path: Path) -> None:
        folder = place(tmp_path, "plain")
        words = map(str, (*WORDS, *TWO, "--data.batch_size", 32))
        environment = {"PATH": "", "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            [sys.executable, "-m", "cifar_lightning", *words],
            cwd=folder,
            env=environment,
            timeout=120,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("epoch 2/2") == 1
        same(folder, alone)

    @pytest.mark.slow
    def test_a_signal_to_one_stops_both_after_the_same_step_and_they_go_on(self, start: Start, tmp_path: Path) -> None:
        whole, cut = place(tmp_path, "whole"), place(tmp_path, "cut")
        assert [child.wait().code for child in pair(start, whole)] == [0, 0]
        results = [child.wait() for child in pair(start, cut, stop=7)]
        assert [result.code for result in results] == [143, 143], results[0].err
        assert checkpoints.load(cut / "runs/cnn/version_0/checkpoints/last.ckpt")["global_step"] == 8
        for child in pair(start, cut, "--ckpt_path", "last"):
            result = child.wait()
            assert result.code == 0, result.err
        assert weights(cut) == weights(whole)
        assert metrics(cut) == metrics(whole)

    def test_they_go_on_with_the_same_checkpoint_or_not_at_all(self, start: Start, alone: Path, tmp_path: Path) -> None:
        folder = place(tmp_path, "apart")
        path = alone / "runs/cnn/version_0/checkpoints"
        port, words = free_port(), (*WORDS, *TWO, "--trainer.max_epochs", 3)
        children = [
            start(*words, "--ckpt_path", path / name, function=Rank(rank, port), folder=folder)
            for rank, name in enumerate(("last.ckpt", "best.ckpt"))
        ]
        result = children[1].wait()
        assert result.code == 2
        assert "name the file with --ckpt_path" in result.err
        children[0].process.kill()

    @pytest.mark.slow
    def test_averaged_weights_are_the_same_in_both(self, start: Start, tmp_path: Path) -> None:
        words = ("--trainer.callbacks+", "EMA", "--trainer.callbacks+", "tests.test_distributed.Average")
        results = [child.wait() for child in pair(start, tmp_path, *words, "--trainer.precision", "32-true")]
        assert [result.code for result in results] == [0, 0], results[0].err
        kept = checkpoints.load("runs/cnn/version_0/checkpoints/last.ckpt")
        averages = {Path(f"average-{rank}").read_text() for rank in (0, 1)}
        assert averages == {digest(kept["state_dict"])} != {digest(kept["current_model_state"])}

    @pytest.mark.slow
    def test_they_judge_as_one_does(self, start: Start, alone: Path, tmp_path: Path) -> None:
        path, port = alone / "runs/cnn/version_0/checkpoints/best.ckpt", free_port()
        words = ("test", "--ckpt_path", path, "--trainer.accelerator", "cpu")
        assert start(*words, "--output", "one").wait().code == 0
        both = [start(*words, "--output", "both", *TWO, function=Rank(rank, port)) for rank in (0, 1)]
        results = [child.wait() for child in both]
        assert [result.code for result in results] == [0, 0], results[0].err
        for name in ("predictions.csv", "per_class.csv"):
            assert (tmp_path / "both" / name).read_text() == (tmp_path / "one" / name).read_text()

    def test_predictions_are_written_by_one(self, run: Run, start: Start, alone: Path) -> None:
        path = alone / "runs/cnn/version_0/checkpoints/best.ckpt"
        assert run("predict", "--ckpt_path", path, *TWO).code == 0
        rows = (alone / "runs/cnn/version_0/predictions.csv").read_text().splitlines()
        assert len(rows) == 1 + 179


class TestShares:
    @pytest.mark.parametrize("processes", [1, 2, 3, 8])
    @pytest.mark.parametrize("count", [8, 9, 31, 64, 65, 100])
    @pytest.mark.parametrize("training", [True, False])
    def test_together_they_are_every_image_once(self, processes: int, count: int, training: bool) -> None:
        images, labels = torch.zeros(count, 1, 1, 3, dtype=torch.uint8), torch.arange(count)

        def place() -> tuple[int, int]:
            return 5, 0

        shares = [
            list(Batches(images, labels, 4, 1, place, rank, processes, shuffled=training)) for rank in range(processes)
        ]
        assert len({len(batches) for batches in shares}) == 1
        every = torch.cat([batch.indices for batches in shares for batch in batches])
        assert sorted(every.tolist()) == list(range(count))
        whole = list(Batches(images, labels, 4 * processes, 1, place, shuffled=training))
        order = torch.cat([batch.indices for batch in whole]).tolist()
        together = [[i for batch in step for i in batch.indices.tolist()] for step in zip(*shares, strict=True)]
        assert [i for step in together for i in step] == order
        rank = Batches(images, labels, 4, 1, place, processes - 1, processes, shuffled=training)
        assert [rank.images_in(number) for number in range(1, len(rank) + 1)] == [*accumulate(map(len, together))]
        for step in zip(*shares, strict=True):
            sizes = [len(batch.indices) for batch in step]
            assert min(sizes) >= (2 if training and count >= 2 * processes else 1)
            assert max(sizes) - min(sizes) <= 1
            for batch in step:
                assert batch.weight / processes == pytest.approx(len(batch.indices) / sum(sizes))

    def test_what_is_random_differs_between_processes(self) -> None:
        images, labels = torch.zeros(8, 1, 1, 3, dtype=torch.uint8), torch.arange(8)
        seeds = [batch.seed for rank in (0, 1) for batch in Batches(images, labels, 2, 0, lambda: (0, 0), rank, 2)]
        assert len(set(seeds)) == 4
