"""Images that do not fit into memory: decoded to disk, and read from there, as the same batches."""

import errno
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.augment import Mirror, ShiftedCrop
from cifar_lightning.callbacks import LastCheckpoint, Resume
from cifar_lightning.cli.from_checkpoint import parser_defaults
from cifar_lightning.data import ImageFolder, batches, folder, images, memory, store
from cifar_lightning.data.batches import Batches
from cifar_lightning.data.images import Rows, channel_statistics
from cifar_lightning.module import Classifier
from cifar_lightning.nets import SpeedNet
from cifar_onnx import InputError
from cifar_onnx.errors import ReadError
from cifar_onnx.images import Pixels, decode, fingerprint
from cifar_onnx.resizing import resize
from tests.conftest import BRIEF, Run, Start, quiet
from tests.test_resume import digest

Usage = namedtuple("Usage", "total used free")


def fit(folder: Path, photos: Path, memory: float, ckpt_path: Path | None = None, **settings: int) -> tuple[str, ...]:
    """Train for two epochs of seven batches, with a checkpoint of each step; what is left of it."""
    L.seed_everything(1, verbose=False)
    data = ImageFolder(str(photos), memory=memory, image_size=16, batch_size=5, augment=[Mirror(), ShiftedCrop(2)])
    keep = ModelCheckpoint(
        folder / "steps", "{step}", save_top_k=-1, every_n_train_steps=1, enable_version_counter=False
    )
    trainer = quiet(
        max_epochs=2,
        callbacks=[Resume(), LastCheckpoint(), keep],
        plugins=[checkpoints.CheckpointFiles()],
        logger=CSVLogger(folder, name="x"),
        enable_checkpointing=True,
        log_every_n_steps=1,
    )
    model = Classifier(data.classes, SpeedNet(3, (4, 4)))
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    assert isinstance(data.train_dataloader().images, Rows) == (memory == 0)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return digest(model.state_dict()), digest(trainer.optimizers[0].state_dict()), digest(metrics)


def load_and_hang(root: Path, count: int) -> None:
    """Load photos one after the other, saving the index after each, until so many are decoded."""
    numbers = iter(range(count))

    def hanging(path: Path) -> Pixels:
        if next(numbers, None) is None:
            time.sleep(60)
        return decode(path)

    folder.decode = hanging  # type: ignore[assignment]
    folder.usable_cpus = lambda: 1  # type: ignore[attr-defined]
    store._EVERY = 0
    ImageFolder(str(root)).load("train")


@pytest.mark.filterwarnings(
    "ignore:The number of training batches", "ignore:.*ckpt_path.*callbacks", "ignore:The dirpath has changed"
)
class TestTraining:
    @pytest.mark.parametrize("threads", [1, 3])
    def test_weights_are_bit_equal_to_those_of_images_in_memory(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
    ) -> None:
        monkeypatch.setattr(batches, "_THREADS", threads)
        assert fit(tmp_path / "streamed", photos, 0) == fit(tmp_path / "whole", photos, 9)

    @pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 9), (9, 0)])
    def test_weights_are_bit_equal_after_a_stop_within_an_epoch(
        self, photos: Path, tmp_path: Path, before: float, after: float
    ) -> None:
        expected = fit(tmp_path / "whole", photos, before)
        for step in (3, 10):
            found = fit(tmp_path / f"again-{step}", photos, after, tmp_path / "whole" / "steps" / f"step={step}.ckpt")
            assert found == expected

    @pytest.mark.slow
    def test_commands_give_what_they_give_with_images_in_memory(self, run: Run, photos: Path) -> None:
        data = ("--data", "ImageFolder", "--data.root", photos)
        result = run("fit", *BRIEF, *data, "--data.memory", 0)
        assert result.code == 0, result.err
        assert "GB of images are more than data.memory, 0 GB: each batch is read" in result.err
        path = "runs/cnn/version_0/checkpoints/best.ckpt"
        assert parser_defaults(checkpoints.load(path))["data"]["init_args"].keys().isdisjoint({"memory"})
        for most in (0, 9):
            words = ("--ckpt_path", path, "--data.memory", most, "--output")
            assert run("test", *words, f"report-{most}", "--resamples", 10).code == 0
            assert run("predict", *words, f"predicted-{most}.csv").code == 0
        for name in ("report-{}/predictions.csv", "report-{}/per_class.csv", "predicted-{}.csv"):
            assert Path(name.format(0)).read_text() == Path(name.format(9)).read_text()
        result = run("export", "--ckpt_path", path, "--precision", "fp16")
        assert result.code == 0, result.err


class TestBatches:
    PIXELS = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    PLACES = np.random.default_rng(1).permutation(60)[:50]

    def both(self, *settings: Any, shuffled: bool) -> tuple[Batches, Batches]:
        labels = torch.arange(50)
        whole = torch.from_numpy(self.PIXELS[self.PLACES])
        rows = Rows(self.PIXELS, self.PLACES)
        return Batches(rows, labels, *settings, shuffled=shuffled), Batches(whole, labels, *settings, shuffled=shuffled)

    @pytest.mark.parametrize("place", [None, (0, 0), (3, 2), (3, 13), (1, 99)])
    @pytest.mark.parametrize(("rank", "processes"), [(0, 1), (1, 3)])
    def test_they_are_the_same(self, place: tuple[int, int] | None, rank: int, processes: int) -> None:
        streamed, whole = self.both(4, 7, (lambda: place) if place else None, rank, processes, shuffled=bool(place))
        assert len(streamed) == len(whole)
        for mine, other in zip(streamed, whole, strict=True):
            assert mine[3:] == other[3:]
            for found, expected in zip(mine[:3], other[:3], strict=True):
                assert torch.equal(found, expected)
            assert mine.images.is_contiguous(memory_format=torch.channels_last)

    def test_few_are_read_ahead_and_none_after_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []
        take = Rows.__getitem__
        monkeypatch.setattr(Rows, "__getitem__", lambda rows, index: asked.append(len(index)) or take(rows, index))
        streamed = iter(self.both(4, 7, shuffled=True)[0])
        next(streamed)
        assert 1 <= len(asked) <= 5
        del streamed  # close() would do, but early 3.12 keeps what the generator holds
        count = len(asked)
        time.sleep(0.05)
        assert len(asked) == count < 13


class TestRows:
    def test_they_are_what_an_array_is(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), dtype=np.uint8)
        places = np.random.default_rng(1).permutation(300)[:290]
        rows, array = Rows(pixels, places), pixels[places]
        assert (rows.shape, len(rows)) == (array.shape, 290)
        assert np.array_equal(rows[7], array[7])
        assert np.array_equal(rows[-20:], array[-20:])
        assert np.array_equal(rows[places[:9] % 290], array[places[:9] % 290])
        assert np.array_equal(rows.take(places[:9] % 290)[2:], array[places[:9] % 290][2:])
        assert fingerprint(rows) == fingerprint(array) != fingerprint(array[:289])
        assert channel_statistics(rows) == channel_statistics(array)

    def test_statistics_of_many_are_over_some(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "_FEWEST", 5)
        monkeypatch.setattr(images, "_ENOUGH", 9 * 4 * 4)
        for side, step in ((4, 5), (8, 10)):  # nine images, and of larger ones the fewest
            pixels = np.random.default_rng(0).integers(0, 256, (41, side, side, 3), dtype=np.uint8)
            mean, std = channel_statistics(pixels)
            assert np.allclose(mean, (pixels[::step] / 255).mean((0, 1, 2)))
            assert np.allclose(std, (pixels[::step] / 255).std((0, 1, 2)))


class TestStore:
    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names of the files that are decoded."""
        names: list[str] = []

        def noted(path: Path) -> Pixels:
            names.append(str(path))
            return decode(path)

        monkeypatch.setattr("cifar_lightning.data.folder.decode", noted)
        return names

    def test_a_new_photo_is_decoded_and_no_other(self, photos: Path, decoded: list[str]) -> None:
        first = ImageFolder(str(photos)).load("train")
        before = first.pixels[:]
        (photos / "train/red/99.png").write_bytes((photos / "test/red/01.png").read_bytes())
        (photos / "train/red/98.png").touch()
        (photos / "train/blue/00.jpg").unlink()
        (pixels,) = Path("cache").rglob("pixels")
        with pixels.open("ab") as file:
            file.write(b"left by a process that was killed")
        del decoded[:]
        second = ImageFolder(str(photos)).load("train")
        assert sorted(map(os.path.basename, decoded)) == ["98.png", "99.png"]
        assert [Path(each.name).name for each in second.unreadable] == ["98.png"]
        for name, pixels in zip(second.names, second.pixels, strict=True):
            assert np.array_equal(pixels, resize(decode(name), 32)), name
        assert np.array_equal(first.pixels[:], before)

    def test_what_could_not_be_read_is_tried_again(self, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A user without permission, who gets it: neither size nor time of the file change."""

        forbidden = {"blue", "green", "red"}

        def refused(path: Path) -> Pixels:
            if path.parent.name in forbidden:
                raise ReadError("cannot be read (Permission denied)", str(path))
            return decode(path)

        with monkeypatch.context() as patch:
            patch.setattr("cifar_lightning.data.folder.decode", refused)
            with pytest.raises(InputError, match="none of the 36 files can be read as a picture"):
                ImageFolder(str(photos)).load("train")
            forbidden -= {"blue", "green"}
            with pytest.raises(InputError, match="none of the files of class 'red' can be read as a picture"):
                ImageFolder(str(photos)).load("train")
        assert len(ImageFolder(str(photos)).load("train")) == 36
        (pixels,) = Path("cache").rglob("pixels")
        assert pixels.stat().st_size == 36 * 3072

    def test_what_was_decoded_before_an_interruption_stays(
        self, photos: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(path: Path) -> Pixels:
            if len(decoded) == 20:
                raise KeyboardInterrupt
            decoded.append(str(path))
            return decode(path)

        with monkeypatch.context() as patch:
            patch.setattr("cifar_lightning.data.folder.decode", interrupted)
            patch.setattr("cifar_lightning.data.folder.usable_cpus", lambda: 1)
            with pytest.raises(KeyboardInterrupt):
                ImageFolder(str(photos)).load("train")
        data = ImageFolder(str(photos)).load("train")
        assert len(decoded) == len(set(decoded)) == 36
        fresh = ImageFolder(str(photos), cache_dir="fresh").load("train")
        assert np.array_equal(data.pixels[:], fresh.pixels[:])

    def test_what_was_saved_before_a_kill_stays(self, photos: Path, decoded: list[str], start: Start) -> None:
        def saved() -> int:
            return sum(len(np.load(index)["keys"]) for index in Path("cache").rglob("index.npz"))

        assert store._EVERY <= 60  # a minute is lost at most: docs/reliability.md
        child = start(photos, 30, function=load_and_hang)
        assert child.wait_for(lambda: saved() > 10)
        child.process.kill()
        child.wait()
        kept = saved()
        assert 10 < kept < 36
        data = ImageFolder(str(photos)).load("train")
        assert len(decoded) == 36 - kept
        for name, pixels in zip(data.names, data.pixels, strict=True):
            assert np.array_equal(pixels, resize(decode(name), 32)), name

    @pytest.mark.parametrize("room", [0, 1e12])
    def test_without_room_on_disk_they_go_to_memory_if_they_fit(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], room: float
    ) -> None:
        expected = ImageFolder(str(photos)).load("train").pixels[:]
        monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(9, 9, 100))
        monkeypatch.setattr("cifar_lightning.data.folder.free", lambda device: room)
        data = ImageFolder(str(photos), cache_dir="fresh")
        if room:
            assert np.array_equal(data.load("train").pixels[:], expected)
        else:
            with pytest.raises(InputError, match=r"36 images of 32 x 32 pixels do not fit .* by --data.cache_dir"):
                data.load("train")
        assert f"[Errno {errno.ENOSPC}] 0.0 GB are needed in " in capsys.readouterr().err

    def test_a_disk_that_becomes_full_is_left_with_what_it_had(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Or a quota, of which a disk says nothing: what cannot be found again would leave no room for the run."""

        def full(out: BinaryIO, **arrays: object) -> None:
            out.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        shutil.copytree(photos / "train", "first")
        ImageFolder("first").load("train")
        shutil.copy(photos / "test/red/01.png", "first/red/99.png")
        with monkeypatch.context() as patch:
            patch.setattr(np, "savez", full)
            assert len(ImageFolder("first").load("train")) == 37
        assert "No space left on device" in capsys.readouterr().err
        (pixels,) = Path("cache").rglob("pixels")
        assert pixels.stat().st_size == 36 * 3072
        assert sorted(path.name for path in pixels.parent.iterdir()) == ["index.npz", "pixels"]


class TestMemory:
    def test_what_is_free_is_some_of_what_there_is(self) -> None:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        alone = memory.free(torch.device("cpu"))
        assert 1e6 < alone <= there
        assert memory.free(torch.device("cpu"), 10) < alone / 5

    @pytest.mark.parametrize(
        ("own", "folder", "files", "total"),
        [
            ("0::/\n", "", ("memory.max", "memory.current"), ""),
            ("1:cpu:/x\n0::/slurm/job_1/step_0\n", "slurm/job_1", ("memory.max", "memory.current"), ""),
            ("0::/out/of/sight\n", "", ("memory.max", "memory.current"), ""),
            (
                "4:cpu,memory:/job_1\n0::/\n",
                "memory/job_1",
                ("memory.limit_in_bytes", "memory.usage_in_bytes"),
                "total_",
            ),
        ],
    )
    def test_a_container_or_a_job_may_have_less(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, folder: str, files: tuple[str, str], total: str
    ) -> None:
        monkeypatch.setattr(memory, "_GROUPS", tmp_path)
        monkeypatch.setattr(memory, "_OWN", tmp_path / "own")
        assert memory.free(torch.device("cpu")) > 1e6
        (tmp_path / "own").write_text(own)
        (limit, used), group = files, tmp_path / folder
        group.mkdir(parents=True, exist_ok=True)
        (group / used).write_text("1000\n")
        (group / "memory.stat").write_text(f"anon 300\nfile 700\n{total}active_file 200\n{total}inactive_file 400\n")
        (group / limit).write_text("5000\n")
        assert memory.free(torch.device("cpu")) == 4600  # all but 300 of programs and 100 that are shared
        (group / limit).write_text("max\n" if not total else f"{2**63 - 4096}\n")  # for no limit
        assert memory.free(torch.device("cpu")) > 1e6

    def test_auto_is_a_quarter(self, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for room, streamed in ((4 * 36 * 3072, False), (4 * 36 * 3072 - 1, True)):
            monkeypatch.setattr("cifar_lightning.data.folder.free", lambda device, processes, room=room: room)
            data = ImageFolder(str(photos))
            data.trainer = quiet()
            data.setup("fit")
            assert isinstance(data.train_dataloader().images, Rows) is streamed

    def test_the_first_of_several_processes_says_it(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = ImageFolder(str(photos), memory=0)
        for first in (True, False):
            data.trainer = SimpleNamespace(is_global_zero=first, num_devices=2)  # type: ignore[assignment]
            assert data.streamed(["train"], torch.device("cpu"))
            assert ("more than data.memory" in capsys.readouterr().err) == first

    def test_less_than_none_is_refused(self, photos: Path) -> None:
        with pytest.raises(InputError, match=r"data.memory is -1: it must be a number of GB, or auto"):
            ImageFolder(str(photos), memory=-1)
