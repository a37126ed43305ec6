import errno
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from cifar_lightning.augment import Augmentation, Mirror
from cifar_lightning.data import Digits, ImageData, ImageFolder, Images, folder
from cifar_lightning.data.batches import Batches
from cifar_lightning.data.images import Part, Rows, channel_statistics, slices, stratify
from cifar_lightning.data.store import Picture, Store
from cifar_lightning.export.pipeline import samples
from cifar_lightning.runs import start as start_run
from cifar_onnx import InputError
from cifar_onnx.images import Pixels, decode, fingerprint
from cifar_onnx.resizing import resize
from tests.conftest import Start, make_photos, quiet


def load_photos(root: Path, hang: bool = False) -> None:
    """Load the training photos, print their fingerprint, and write a letter for each that is decoded."""

    def counted(path: Path) -> Pixels:
        with open("decoded", "a") as file:
            file.write("x")
        if hang:
            time.sleep(60)
        return decode(path)

    folder.decode = counted  # type: ignore[assignment]
    print(fingerprint(ImageFolder(str(root)).load("train").pixels))


def attach(data: ImageData, stage: str) -> ImageData:
    """What a Trainer does before the first epoch."""
    data.trainer = quiet()
    data.setup(stage)
    return data


def test_some_batches_of_a_set_are_of_all_classes(photos: Path) -> None:
    data = ImageFolder(str(photos), batch_size=3, val_fraction=0.4)
    attach(data, "fit")
    assert next(iter(data.val_dataloader())).labels.tolist() == [0, 0, 0]
    for limit in (1, 0.5):
        data.trainer.limit_val_batches = limit  # type: ignore[union-attr]
        first, again = (next(iter(data.val_dataloader())) for _ in range(2))
        assert len(first.labels.unique()) > 1
        assert torch.equal(first.indices, again.indices)


def test_some_batches_of_a_set_are_the_same_ones_whatever_the_seed_of_the_run() -> None:
    def first(stage: str, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        data = attach(Digits(), stage)
        data.trainer.limit_val_batches = 1  # type: ignore[union-attr]
        return next(iter(data.val_dataloader())).indices

    validated = first("validate", 0)
    assert torch.equal(first("fit", 1), validated)
    assert torch.equal(first("fit", 2), validated)


class TestBatches:
    IMAGES = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 2, 4, 3).contiguous()
    LABELS = torch.arange(50)

    def shuffled(self, seed: int = 0, epoch: int = 0) -> Batches:
        return Batches(self.IMAGES, self.LABELS, 16, seed, lambda: (epoch, 0), shuffled=True)

    def epoch(self, number: int, seed: int = 0) -> list[torch.Tensor]:
        return [batch.labels for batch in self.shuffled(seed, number)]

    def test_an_epoch_is_every_image_once_with_its_label(self) -> None:
        batches = list(self.shuffled())
        assert [len(batch.labels) for batch in batches] == [16, 16, 16, 2]
        assert sorted(torch.cat([batch.labels for batch in batches]).tolist()) == list(range(50))
        for images, labels, indices, *_ in batches:
            assert images.shape[1:] == (3, 2, 4)
            assert torch.equal(images[:, 0, 0, 0].long(), labels)
            assert torch.equal(indices, labels)

    @pytest.mark.parametrize(("shuffled", "sizes"), [(True, [16, 16, 17]), (False, [16, 16, 16, 1])])
    def test_a_rest_of_one_image_trains_with_the_batch_before(self, shuffled: bool, sizes: list[int]) -> None:
        batches = Batches(self.IMAGES[:49], self.LABELS[:49], 16, shuffled=shuffled)
        assert [len(batch.labels) for batch in batches] == sizes
        assert len(batches) == len(sizes)

    def test_order_is_a_function_of_seed_and_epoch(self) -> None:
        assert all(map(torch.equal, self.epoch(3), self.epoch(3)))
        assert not torch.equal(self.epoch(3)[0], self.epoch(4)[0])
        assert not torch.equal(self.epoch(3)[0], self.epoch(3, seed=1)[0])

    def test_batches_that_are_to_be_learnt_by_heart_are_the_same_in_every_epoch(self) -> None:
        data = Digits(batch_size=16)
        data.trainer = quiet(overfit_batches=2)
        data.setup("fit")
        first = list(data.train_dataloader())
        data.trainer.fit_loop.epoch_progress.current.completed = 1
        second = list(data.train_dataloader())
        assert all(torch.equal(a.indices, b.indices) for a, b in zip(first, second, strict=True))
        assert [each.epoch for each in second[:2]] == [1, 1]
        assert all(a.seed != b.seed for a, b in zip(first, second, strict=True))  # of dropout and augmentation

    def test_every_batch_has_a_seed_of_its_own(self) -> None:
        passes = [self.shuffled(0, epoch) for epoch in range(3)]
        seeds = [batch.seed for batches in passes for batch in batches]
        assert len(set(seeds)) == 12

    def test_batches_are_slices_of_one_permuted_tensor_in_channels_last_memory(self) -> None:
        first, second, *_ = self.shuffled()
        assert first.images.untyped_storage().data_ptr() == second.images.untyped_storage().data_ptr()
        assert first.images.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize("first", [0, 2])
    def test_unless_they_are_shuffled_the_order_stays_from_wherever_it_begins(self, first: int) -> None:
        labels = [batch.labels for batch in Batches(self.IMAGES, self.LABELS, 16, 0, lambda: (3, first))]
        assert torch.cat(labels).tolist() == list(range(16 * first, 50))


class TestSplit:
    LABELS = np.repeat([0, 1, 2], [100, 40, 3])
    NAMES = tuple(map(str, range(143)))

    def test_it_is_stratified_disjoint_and_complete(self) -> None:
        parts = stratify(self.LABELS, self.NAMES, {"test": 0.2, "val": 0.1}, seed=0)
        assert {part: np.bincount(self.LABELS[i], minlength=3).tolist() for part, i in parts.items()} == {
            "test": [20, 8, 1],
            "val": [10, 4, 1],
            "train": [70, 28, 1],
        }
        assert sorted(np.concatenate(list(parts.values()))) == list(range(143))

    def test_it_is_a_function_of_the_seed(self) -> None:
        first, same, other = (stratify(self.LABELS, self.NAMES, {"val": 0.1}, seed)["val"] for seed in (0, 0, 1))
        assert first.tolist() == same.tolist()
        assert first.tolist() != other.tolist()

    def test_another_place_changes_nothing_and_new_images_little(self) -> None:
        def test_names(names: list[str]) -> set[str]:
            chosen = stratify(np.zeros(len(names), np.int64), names, {"test": 0.1}, 0)["test"]
            return {Path(names[index]).name for index in chosen}

        names = [f"here/{number}.jpg" for number in range(200)]
        before = test_names(names)
        assert len(before) == 20
        assert test_names([name.replace("here", "/there") for name in names]) == before
        after = test_names(sorted([*names, *(f"here/new-{number}.jpg" for number in range(20))]))
        seen_in_training = {name for name in after - before if not name.startswith("new")}
        assert len(seen_in_training) <= 2

    def test_copies_stay_together(self) -> None:
        copies = np.arange(143).astype("S3")
        copies[100:140] = b"a"  # a class of one picture
        copies[20:40] = copies[:20]
        parts = stratify(self.LABELS, self.NAMES, {"test": 0.2, "val": 0.1}, 0, copies)
        groups = [{*copies[indices].tolist()} for indices in parts.values()]
        assert sum(map(len, groups)) == len({*copies.tolist()})
        assert [len(indices) for indices in parts.values()] == [22, 11, 110]
        without = stratify(self.LABELS, self.NAMES, {"test": 0.2, "val": 0.1}, 0)
        unique = stratify(self.LABELS, self.NAMES, {"test": 0.2, "val": 0.1}, 0, np.arange(143).astype("S3"))
        assert all(np.array_equal(without[part], unique[part]) for part in parts)

    @pytest.mark.parametrize("copies", [1, 8])
    def test_where_copies_leave_none_for_a_part_it_says_so(self, copies: int) -> None:
        count, labels = 2 * copies, np.repeat([0, 1], copies)
        pixels, prints = np.zeros((count, 4, 4, 3), np.uint8), labels.astype("S1")
        end = " (copies of an image count as one)" if copies > 1 else ""
        with pytest.raises(InputError) as error:
            slices(Images(pixels, labels, ["x"] * count, fingerprints=prints), {"test": 0.1}, 0)
        assert str(error.value) == f"no image is left for test: {count} images of 2 classes are too few{end}"
        with pytest.raises(InputError, match=r"are too few$"):  # what has no fingerprints has no copies
            slices(Images(pixels[:2], labels[::copies], ["x"] * 2), {"test": 0.1}, 0)

    def test_copies_are_as_likely_to_be_in_a_part_as_others(self) -> None:
        """Of a placeholder that was saved forty times, say."""
        names = [f"{number}.jpg" for number in range(200)]
        copies = np.array(["a"] * 40 + names[40:], np.bytes_)
        parts = [stratify(np.zeros(200, np.int64), names, {"test": 0.1}, seed, copies) for seed in range(100)]
        assert sum(0 in each["test"] for each in parts) < 25

    def test_the_form_of_a_name_in_unicode_changes_nothing(self) -> None:
        """A folder that was copied from macOS to Linux, whose names are spelt in one form here and in another there."""
        composed = [f"Gr\u00fcn {number}.jpg" for number in range(100)]
        decomposed = [name.replace("\u00fc", "u\u0308") for name in composed]
        one, other = (stratify(np.zeros(100, np.int64), names, {"test": 0.1}, 0) for names in (composed, decomposed))
        assert one["test"].tolist() == other["test"].tolist()

    def test_a_lone_image_stays_in_train(self) -> None:
        assert stratify(np.array([0, 0, 0, 1]), "abcd", {"val": 0.49}, 0)["train"].tolist()[-1] == 3


class TestStatistics:
    def test_they_equal_numpys(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (2000, 5, 4, 3), dtype=np.uint8)
        mean, std = channel_statistics(pixels)
        assert np.allclose(mean, (pixels / 255).mean((0, 1, 2)), atol=1e-12)
        assert np.allclose(std, (pixels / 255).std((0, 1, 2)), atol=1e-12)


class Given(ImageData):
    """What it is given, for each part; a source of the user's own."""

    classes = property(lambda self: ["a", "b"])  # type: ignore[assignment]
    given = frozenset({"train", "predict"})  # type: ignore[assignment]

    def __init__(self, found: object) -> None:
        super().__init__()
        self.found = found

    def load(self, part: str) -> Any:
        return self.found


PIXELS, LABELS = np.zeros((6, 32, 32, 3), np.uint8), np.arange(6) % 2


@pytest.mark.parametrize(
    ("pixels", "labels", "names", "reason"),
    [
        (PIXELS[:, :28, :28], LABELS, 6, "pixels uint8 (6, 28, 28, 3): they must be uint8 (N, 32, 32, 3), by image_"),
        (PIXELS / 255, LABELS, 6, "pixels float64 (6, 32, 32, 3): they must be uint8 (N, 32, 32, 3), by image_size"),
        (PIXELS[..., 0], LABELS, 6, "pixels uint8 (6, 32, 32): they must be"),
        (PIXELS.transpose(0, 3, 1, 2), LABELS, 6, "pixels uint8 (6, 3, 32, 32): they must be"),
        (torch.from_numpy(PIXELS), LABELS, 6, "pixels Tensor: they must be"),
        (Rows(PIXELS[:, :8, :8], np.arange(5)), LABELS[:5], 5, "pixels (5, 8, 8, 3): they must be"),
        (PIXELS, LABELS.astype(np.int32), 6, "labels int32 (6,): they must be int64 (6,), one for each picture"),
        (PIXELS, LABELS[1:], 5, "labels int64 (5,): they must be int64 (6,), one for each picture"),
        (PIXELS, LABELS + 1, 6, "labels 1 to 2: for 2 classes they must be 0 to 1"),
        (PIXELS, LABELS - 1, 6, "labels -1 to 0: for 2 classes they must be 0 to 1"),
        (PIXELS, LABELS, 5, "5 names for 6 pictures: it must give one for each"),
        (PIXELS[:0], LABELS[:0], 0, "no pictures: it must give one at least"),
    ],
)
def test_what_a_source_gives_is_looked_at(pixels: Any, labels: Any, names: int, reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"Given.load('train') gives {reason}")):
        Given(Images(pixels, labels, [""] * names)).images("val")


def test_a_source_must_give_images_whose_labels_may_be_unknown_where_they_are_predicted() -> None:
    with pytest.raises(InputError, match=r"Given.load\('train'\) gives tuple: it must be cifar_lightning.data.Images"):
        Given((PIXELS, LABELS)).images("test")
    assert Given(Images(PIXELS, LABELS - 1, [""] * 6)).images("predict").labels.min() == -1


class TestDigits:
    def test_they_are_the_scans_as_rgb(self) -> None:
        data = Digits()
        parts = {part: data.images(part) for part in ("train", "val", "test")}
        assert sum(map(len, parts.values())) == 1797
        assert data.classes == list("0123456789")
        for images in parts.values():
            assert images.pixels.shape[1:] == (32, 32, 3)
            assert images.pixels.dtype == np.uint8
            assert images.pixels.max() == 255
            assert (images.pixels == images.pixels[..., :1]).all()
        names = [name for images in parts.values() for name in images.names]
        assert len(set(names)) == 1797

    def test_augmentation_changes_training_batches_only(self) -> None:
        class Black(Augmentation):
            def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
                return images * 0

        data = attach(Digits(augment=[Mirror(), Black()]), "fit")
        assert data.trainer is not None
        batch = next(iter(data.train_dataloader()))
        data.trainer.training = True
        assert not data.on_after_batch_transfer(batch, 0).images.any()
        data.trainer.validating = True
        assert data.on_after_batch_transfer(batch, 0) is batch

    @pytest.mark.parametrize(
        ("name", "value"), [("batch_size", 0), ("val_fraction", 0.9), ("test_fraction", -1), ("split_seed", -1)]
    )
    def test_impossible_settings_are_named(self, name: str, value: float) -> None:
        with pytest.raises(InputError, match=rf"data\.{name} is {value}"):
            Digits(**{name: value})


class TestImageFolder:
    def test_train_and_test_folders(self, photos: Path) -> None:
        data = ImageFolder(str(photos))
        assert data.classes == ["blue", "green", "red"]
        assert [len(data.images(part)) for part in ("train", "val", "test")] == [33, 3, 9]
        for part in ("train", "val", "test"):
            images = data.images(part)
            for pixels, label, name in zip(images.pixels, images.labels, images.names, strict=True):
                assert Path(name).parent.name == data.classes[label]
                assert np.array_equal(pixels, resize(decode(name), 32))

    def test_one_flat_tree_is_split(self, photos: Path) -> None:
        data = ImageFolder(str(photos / "train"), test_fraction=0.25)
        assert [len(data.images(part)) for part in ("train", "val", "test")] == [24, 3, 9]

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            ({"resize_mode": "centre"}, "data.resize_mode is 'centre': it must be one of stretch, crop, pad"),
            ({"sampling": "balance"}, "data.sampling is 'balance': it must be one of once, balanced"),
        ],
    )
    def test_in_python_too_a_choice_that_there_is_not_is_refused(
        self, photos: Path, settings: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(InputError, match=re.escape(sentence)):
            ImageFolder(str(photos), **settings)

    def test_a_class_that_test_lacks_is_fine(self, photos: Path) -> None:
        for file in (photos / "test" / "green").iterdir():
            file.unlink()
        (photos / "test" / "green").rmdir()
        data = ImageFolder(str(photos))
        assert sorted({data.classes[label] for label in data.images("test").labels}) == ["blue", "red"]

    def test_a_class_that_train_lacks_is_named(self, photos: Path) -> None:
        (photos / "test" / "red").rename(photos / "test" / "zebra")
        sentence = (
            "test/zebra: 'zebra' is not one of the classes blue, green, red: leave it out, or train with photos of it"
        )
        with pytest.raises(InputError, match=sentence):
            ImageFolder(str(photos)).images("test")

    def test_a_class_without_pictures_is_named(self, photos: Path) -> None:
        (photos / "train" / "yellow").mkdir()
        data = ImageFolder(str(photos))
        with pytest.raises(InputError, match=r"no pictures of class 'yellow' to train on$"):
            data.images("train")
        data.elsewhere = True
        with pytest.raises(InputError, match="to train on: python -m cifar_onnx evaluate judges photos of some"):
            data.images("train")

    @pytest.mark.parametrize(
        ("old", "new", "meant"),
        [("train", "Train", "train"), ("test", "testing", "test"), ("test", "valid", "val")],
    )
    def test_a_part_by_another_name_is_neither_left_out_nor_a_class(
        self, photos: Path, old: str, new: str, meant: str
    ) -> None:
        (photos / old).rename(photos / new)
        if old == "train":
            (photos / "test").rename(photos / "Test")
        sentence = f"{photos}/[Tt]\\w+ is neither" if old == "train" else f"{photos / new} is neither"
        with pytest.raises(InputError, match=rf"{sentence} a class nor train/, val/ or test/: rename it to \w+"):
            ImageFolder(str(photos))
        if old != "train":
            with pytest.raises(InputError, match=f"rename it to {meant}"):
                ImageFolder(str(photos))

    @pytest.mark.skipif(os.name != "posix", reason="on Windows few people may make links")
    @pytest.mark.parametrize("part", ["train", "val", "test"])
    def test_no_part_is_cut_from_train_in_place_of_one_on_another_disk(self, photos: Path, part: Part) -> None:
        """Also where a checkpoint names the classes."""
        if part != "val":
            shutil.rmtree(photos / part)
        (photos / part).symlink_to("/unmounted")
        for classes in (None, ["blue", "green", "red"]):
            with pytest.raises(InputError, match=f"{part} is a link that leads nowhere: mount its disk"):
                ImageFolder(str(photos), classes=classes).images(part)

    def test_runs_among_the_pictures_are_no_class(self, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As where fit is started in the folder of the pictures."""
        monkeypatch.chdir(photos / "train")
        data = ImageFolder(".")
        start_run(Path("runs"), "cnn")
        assert len(data.load("train")) == 36
        assert ImageFolder(".").classes == ["blue", "green", "red"]

    def test_a_class_may_be_called_valid(self, photos: Path) -> None:
        (photos / "train" / "red").rename(photos / "train" / "valid")
        assert ImageFolder(str(photos / "train")).classes == ["blue", "green", "valid"]

    def test_a_class_may_be_called_train(self, photos: Path) -> None:
        vehicles = photos / "train"
        (vehicles / "red").rename(vehicles / "train")
        data = ImageFolder(str(vehicles))
        assert data.classes == ["blue", "green", "train"]
        assert [len(data.images(part)) for part in ("train", "val", "test")] == [30, 3, 3]
        for file in (vehicles / "train").iterdir():
            file.unlink()
        with pytest.raises(InputError, match="train/train holds no classes to train on"):
            ImageFolder(str(vehicles))

    @pytest.mark.parametrize(
        "others", [[], ["extra"], ["extra", "test1"], ["cat", "dog", "test"], ["cat", "dog", "val"]]
    )
    def test_a_training_set_that_is_not_sorted_is_no_class(self, others: list[str]) -> None:
        for name in ("train", *others):
            Path("photos", name).mkdir(parents=True)
            Path("photos", name, "0.png").touch()
        with pytest.raises(InputError, match=r"^photos/train holds no classes .*needed: put the photos of each"):
            ImageFolder("photos")

    def test_of_many_unreadable_files_a_few_are_named(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for number in range(9):
            (photos / "train" / "red" / f"x\x1b[{number}.jpg").write_text("not a picture")
        ImageFolder(str(photos)).images("train")
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")]
        assert len(lines) == 6
        assert lines[-1] == f"skipped: 4 more files of {photos / 'train'}"
        assert lines[0].startswith(f"skipped: {photos / 'train' / 'red' / 'x'}\\x1b[0.jpg: not a picture")

    def test_what_there_is_to_train_on_is_a_line(self, photos: Path) -> None:
        held = "3 classes (blue, green, red): 33 training images of 32 x 32 pixels, 3 held out for validation"
        assert str(ImageFolder(str(photos))) == held
        flat = "30 training images of 32 x 32 pixels, 3 held out for validation, 3 held out for testing"
        assert str(ImageFolder(str(photos / "train"))) == f"3 classes (blue, green, red): {flat}"
        shutil.copytree(photos / "test", photos / "val")
        assert str(ImageFolder(str(photos))).endswith(": 36 training images of 32 x 32 pixels, 9 for validation")
        shutil.rmtree(photos / "val" / "green")
        assert str(ImageFolder(str(photos))).endswith(" 6 for validation (none of green)")

    def test_a_test_folder_without_a_training_folder_is_no_class(self, photos: Path) -> None:
        (photos / "train").rename(photos / "trainn")
        with pytest.raises(InputError, match=r"has test/ but no train/ beside it"):
            ImageFolder(str(photos))

    def test_pictures_that_are_judged_and_trained_on_are_told(
        self, photos: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        red, green = photos / "train" / "red", photos / "train" / "green"
        shutil.copy(red / "03.png", green / "copy.png")
        shutil.copy(red / "05.png", photos / "test" / "red" / "new.png")
        make_photos(photos / "val", 2)
        shutil.copy(red / "07.png", photos / "val" / "red" / "same.png")
        attach(ImageFolder(str(photos)), "fit")
        assert [line for line in capsys.readouterr().err.splitlines() if "such as" in line] == [
            "training images with a copy of another label: 1, such as "
            f"{green / 'copy.png'} (green) and {red / '03.png'} (red)",
            f"1 of 7 val images are also training images, such as {photos / 'val/red/same.png'} "
            f"({red / '07.png'}): results look better than they are",
        ]
        with pytest.MonkeyPatch.context() as second:  # of several processes says nothing
            second.setattr(L.Trainer, "is_global_zero", False)
            attach(ImageFolder(str(photos)), "fit")
            assert "such as" not in capsys.readouterr().err
        attach(ImageFolder(str(photos)), "test")
        assert "1 of 10 test images are also training images, such as" in capsys.readouterr().err
        (green / "copy.png").unlink()
        attach(ImageFolder(str(photos / "train")), "test")  # of which it is a slice
        assert "are also training images" not in capsys.readouterr().err
        shutil.rmtree(photos / "train")
        attach(ImageFolder(str(photos), classes=["blue", "green", "red"]), "test")
        assert "are also training images" not in capsys.readouterr().err

    @pytest.mark.parametrize("listed", [False, True])
    def test_unicode_has_several_forms_of_a_name_but_a_class_has_one(self, photos: Path, listed: bool) -> None:
        decomposed, composed = "Gru\u0308n", "Gr\u00fcn"
        for part, name in (("train", decomposed), ("test", composed)):
            (photos / part / "green").rename(photos / part / name)
        if listed:
            files = [(part, file) for part in ("train", "test") for file in sorted((photos / part).glob("*/*"))]
            lines = [f"{file},{file.parent.name},{part}" for part, file in files]
            (photos / "labels.csv").write_text("\n".join(["path,label,split", *lines]), encoding="utf-8")
        data = ImageFolder(str(photos), "labels.csv" if listed else None)
        assert data.classes == [composed, "blue", "red"]
        assert np.bincount(data.images("test").labels).tolist() == [3, 3, 3]
        older = ImageFolder(str(photos), "labels.csv" if listed else None, classes=[decomposed, "blue", "red"])
        assert np.bincount(older.images("test").labels).tolist() == [3, 3, 3]
        assert older.given == {"train", "test"}

    def test_predict_takes_what_training_did_not_see(self, photos: Path) -> None:
        assert len(ImageFolder(str(photos)).predicted) == 9
        assert len(ImageFolder(str(photos / "train")).predicted) == 3
        new = ImageFolder(str(photos / "train"))
        new.elsewhere = True
        assert len(new.predicted) == 36
        (photos / "train" / "red" / "predict").mkdir()  # a folder like any other
        others = ImageFolder(str(photos / "train" / "red"), classes=["blue", "green", "red"]).predicted
        assert len(others) == 12
        assert set(others.labels) == {-1}
        grown = ImageFolder(str(photos / "train"), classes=["blue", "red"])  # of which there were two when it was fit
        with pytest.raises(InputError, match="'green' is not one of the classes blue, red"):
            _ = grown.predicted

    def test_a_test_folder_without_classes_is_to_be_predicted(self, photos: Path) -> None:
        for file in [*(photos / "test").glob("*/*")]:
            file.rename(photos / "test" / f"{file.parent.name}-{file.name}")
        for name in ("blue", "green", "red"):
            (photos / "test" / name).rmdir()
        data = ImageFolder(str(photos))
        assert [len(data.images(part)) for part in ("train", "val", "test")] == [30, 3, 3]
        assert (data.folder("test"), data.folder("predict")) == (photos, photos / "test")
        assert (len(data.predicted), set(data.predicted.labels)) == (9, {-1})
        elsewhere = ImageFolder(str(photos / "test"), classes=data.classes)
        assert len(elsewhere.predicted) == 9
        shutil.rmtree(photos / "test")
        (photos / "test").mkdir()
        assert len(ImageFolder(str(photos)).predicted) == 3

    def test_fewer_than_two_classes_are_refused(self, photos: Path) -> None:
        with pytest.raises(InputError, match="holds no classes to train on, at least two are needed"):
            ImageFolder(str(photos / "train" / "red"))

    @pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
    def test_size_and_mode_are_those_asked_for(self, photos: Path, mode: str) -> None:
        images = ImageFolder(str(photos), image_size=24, resize_mode=mode).images("val")  # type: ignore[arg-type]
        for pixels, name in zip(images.pixels, images.names, strict=True):
            assert np.array_equal(pixels, resize(decode(name), 24, mode))  # type: ignore[arg-type]

    def test_unreadable_files_are_named_with_their_reason_and_left_out(
        self, photos: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        red = photos / "train" / "red"
        (red / "notes.txt").write_text("not a picture")
        Image.effect_noise((200, 200), 50).save(red / "cut.jpg")
        (red / "cut.jpg").write_bytes((red / "cut.jpg").read_bytes()[:-2000])
        (red / "empty.png").touch()
        if os.name == "posix":  # on Windows few people may make links
            (red / "gone.png").symlink_to("nowhere.png")
            (red / "loop.png").symlink_to("loop.png")
        (red / ".DS_Store").write_text("junk")
        (red / "Thumbs.db").write_text("junk")
        (red / ".ipynb_checkpoints").mkdir()
        shutil.copy(red / "00.jpg", red / ".ipynb_checkpoints")
        data = ImageFolder(str(photos))
        assert len(data.images("train")) + len(data.images("val")) == 36
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")]
        reasons = {"notes.txt": "not a picture", "cut.jpg": "truncated", "empty.png": "an empty file"}
        reasons |= {"gone.png": "no such file", "loop.png": "cannot be read"} if os.name == "posix" else {}
        assert len(lines) == len(reasons)
        for name, reason in reasons.items():
            assert any(re.search(rf"red/{name}: .*{reason}", line) for line in lines), name

    def test_a_class_of_which_nothing_can_be_read_is_not_trained(self, photos: Path) -> None:
        """Photos of a phone, for one."""
        for file in (photos / "train" / "green").iterdir():
            file.write_bytes(b"\0\0\0\x18ftypheic")
        with pytest.raises(InputError, match=r"train: none of the files of class 'green' can be read as a picture"):
            ImageFolder(str(photos)).images("train")

    @pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
    def test_names_of_classes_must_be_text(self, photos: Path) -> None:
        """A checkpoint with another one could not be read again."""
        (photos / "train" / "red").rename(photos / "train" / os.fsdecode(b"caf\xe9"))
        with pytest.raises(InputError, match=r"the class 'caf\\udce9' has no name in UTF-8: rename its folder"):
            ImageFolder(str(photos))

    def test_modes_and_orientation_become_upright_rgb(self, photos: Path) -> None:
        red = photos / "train" / "red"
        exif = Image.Exif()
        exif[0x0112] = 6  # turned a quarter
        stripe = np.zeros((20, 40, 3), np.uint8)
        stripe[:10] = 255
        Image.fromarray(stripe).save(red / "turned.png", exif=exif)
        for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16"):
            image = Image.fromarray(stripe).convert("L" if mode == "I;16" else mode)
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
            image.save(red / f"mode-{mode[0:2].strip(';')}.{'jpg' if mode == 'CMYK' else 'png'}")
        images = ImageFolder(str(photos), image_size=4).load("train")
        seen = {Path(name).name: pixels for name, pixels in zip(images.names, images.pixels, strict=True)}
        upright = seen.pop("turned.png")
        assert upright[0, 0, 0] == 0
        assert upright[0, -1, 0] == 255
        found = [name for name in seen if name.startswith("mode-")]
        assert len(found) == 7
        for name in found:
            assert seen[name][0].min() > 240, name
            assert seen[name][-1].max() < 15, name

    def test_the_second_run_decodes_nothing(self, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = ImageFolder(str(photos)).load("train")
        monkeypatch.setattr("cifar_lightning.data.folder.decode", None)
        again = ImageFolder(str(photos)).load("train")
        assert np.array_equal(first.pixels[:], again.pixels[:])
        assert first.names == again.names

    def test_of_eight_at_once_one_decodes_and_all_have_the_same(
        self, photos: Path, tmp_path: Path, start: Start
    ) -> None:
        results = [child.wait() for child in [start(photos, function=load_photos) for _ in range(8)]]
        assert [result.code for result in results] == [0] * 8, results[0].err
        expected = fingerprint(ImageFolder(str(photos)).load("train").pixels)
        assert [result.out.splitlines()[-1] for result in results] == [expected] * 8
        assert len((tmp_path / "decoded").read_text()) == 36

    def test_where_the_one_that_decodes_is_killed_the_next_takes_over(
        self, photos: Path, tmp_path: Path, start: Start
    ) -> None:
        first = start(photos, True, function=load_photos)
        assert first.wait_for((tmp_path / "decoded").exists)
        second = start(photos, function=load_photos)
        assert second.wait_for(lambda: "waiting for another process that prepares" in second.log.read_text())
        first.process.kill()
        assert second.wait().code == 0
        assert len(list((tmp_path / "cache" / "cifar-lightning").iterdir())) == 2  # the cache and the lock

    @pytest.mark.parametrize("change", ["content", "size", "mode"])
    def test_what_has_changed_is_decoded_again(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        ImageFolder(str(photos)).load("train")
        if change == "content":
            Image.new("RGB", (9, 9)).save(photos / "train" / "red" / "00.jpg")
        decoded = []
        monkeypatch.setattr("cifar_lightning.data.folder.decode", lambda path: decoded.append(path) or decode(path))
        size, mode = (16 if change == "size" else 32), ("crop" if change == "mode" else "stretch")
        ImageFolder(str(photos), image_size=size, resize_mode=mode).load("train")  # type: ignore[arg-type]
        assert len(decoded) == (1 if change == "content" else 36)

    @pytest.mark.parametrize("file", ["index.npz", "pixels"])
    def test_a_damaged_cache_is_made_anew(self, photos: Path, tmp_path: Path, file: str) -> None:
        first = ImageFolder(str(photos), cache_dir=str(tmp_path / "c")).load("train").pixels[:]
        (cache,) = (tmp_path / "c").glob(f"*/{file}")
        cache.write_bytes(cache.read_bytes()[:-999])
        for _ in range(2):
            again = ImageFolder(str(photos), cache_dir=str(tmp_path / "c")).load("train")
            assert np.array_equal(first, again.pixels[:])

    def test_a_flipped_bit_in_the_index_makes_it_anew(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        store = Store(tmp_path, 2)
        store.add(["a"], [Picture(np.zeros((2, 2, 3), np.uint8), 4, "f", "")])
        whole = (tmp_path / "index.npz").read_bytes()
        for offset in range(8, 12):  # of a header in the zip file's directory: flags and compression method
            for bit in range(8):
                flipped = bytearray(whole)
                flipped[whole.index(b"PK\1\2") + offset] ^= 1 << bit
                (tmp_path / "index.npz").write_bytes(flipped)
                assert store.lacks(["a"]) == ([0] if capsys.readouterr().err else [])

    @pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
    def test_an_index_that_cannot_be_read_now_is_not_damaged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        store, picture = Store(tmp_path, 2), Picture(np.ones((2, 2, 3), np.uint8), 4, "f", "")
        store.add(["a"], [picture])
        with monkeypatch.context() as patch:
            if isinstance(error, OSError):
                patch.setattr(Path, "read_bytes", Mock(side_effect=error))
            patch.setattr(np, "load", Mock(side_effect=error))
            with pytest.raises(type(error)):
                store.add(["b"], [picture])
        assert store.lacks(["a"]) == []
        assert (tmp_path / "pixels").stat().st_size == 12

    def test_who_reads_the_old_index_is_waited_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store, picture = Store(tmp_path, 2), Picture(np.ones((2, 2, 3), np.uint8), 4, "f", "")
        replace, left = Path.replace, [PermissionError("it is read")]  # as Windows has it

        def put(self: Path, to: Path) -> None:
            if left:
                raise left.pop()
            replace(self, to)

        monkeypatch.setattr(Path, "replace", put)
        monkeypatch.setattr("time.sleep", lambda _: None)
        store.add(["a"], [picture])
        assert store.lacks(["a"]) == []

    def test_a_cache_that_cannot_be_read_costs_only_time(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = ImageFolder(str(photos)).load("train").pixels[:]
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
            assert np.array_equal(ImageFolder(str(photos)).load("train").pixels[:], first)
        assert "not kept for the next run: [Errno 13] Permission denied" in capsys.readouterr().err
        monkeypatch.setattr("cifar_lightning.data.folder.decode", None)
        assert np.array_equal(ImageFolder(str(photos)).load("train").pixels[:], first)

    def test_a_cache_that_cannot_be_written_costs_only_time(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").touch()
        images = ImageFolder(str(photos), cache_dir=str(tmp_path / "file")).load("train")
        assert len(images) == 36
        assert "not kept for the next run" in capsys.readouterr().err

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, 45])  # the last is ENOTSUP of macOS
    def test_a_cache_in_which_nothing_can_be_locked_is_refused(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        monkeypatch.setattr(errno, "ENOTSUP", 45)
        monkeypatch.setattr(FileLock, "acquire", Mock(side_effect=OSError(number, "No locks available")))
        with pytest.raises(InputError, match=r"cifar-lightning: no file can be locked there .*--data\.cache_dir$"):
            ImageFolder(str(photos)).load("train")

    def test_originals_are_the_files_and_what_they_decoded_to(self, photos: Path) -> None:
        data = ImageFolder(str(photos))
        sample = next(samples(data, 1))
        path = sample.name.removeprefix("val image ")
        assert sample.encoded == Path(path)  # read when it is asked for: together they may be many GB
        assert sample.fingerprint == fingerprint(decode(path))
        assert np.array_equal(sample.pixels, resize(decode(path), 32))
        assert len(list(samples(data, 10))) == 10
        assert len(list(samples(data, 1000))) == 36
