"""Pictures that a CSV file labels, in place of folders."""

import os
from collections.abc import Callable
from pathlib import Path, PurePath
from threading import Barrier

import numpy as np
import pytest

from cifar_lightning.data import ImageFolder
from cifar_lightning.data.listing import Listing
from cifar_lightning.data.store import file_keys
from cifar_onnx import InputError
from cifar_onnx.images import decode
from tests.conftest import BRIEF, Run

Write = Callable[..., Path]


@pytest.fixture
def write(photos: Path) -> Write:
    """Write `labels.csv` beside the folders: a line for each photo of train, or these lines."""

    def make(*lines: str, columns: str = "path,label") -> Path:
        listed = lines or [f"{path.relative_to(photos)},{path.parent.name}" for path in (photos / "train").rglob("*.*")]
        (photos / "labels.csv").write_text("\n".join([columns, *listed]) + "\n")
        return photos / "labels.csv"

    return make


def split_of(data: ImageFolder) -> dict[str, dict[str, int]]:
    parts = ("train", "val", "test")
    return {part: dict(zip(data.images(part).names, data.images(part).labels.tolist(), strict=True)) for part in parts}


@pytest.mark.parametrize("listed", [True, False])
def test_a_disk_is_asked_for_many_files_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool) -> None:
    """One after the other, 300,000 on a network drive would take minutes."""
    paths = [tmp_path / f"{number:03}.png" for number in range(200)]
    for path in paths:
        path.touch()
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{path.name},a\n" for path in paths))
    listing, met, look = Listing(tmp_path / "labels.csv", tmp_path), Barrier(2), os.stat

    def late(path: str, **settings: bool) -> object:
        if os.path.basename(path) in ("000.png", "199.png"):
            met.wait(10)  # for the other one
        return look(path, **settings)

    monkeypatch.setattr(os, "stat", late)
    if listed:
        assert listing.pairs("train", ["a"]) == [(path, 0) for path in paths]
    else:
        assert len(set(file_keys(tmp_path, paths))) == 200


def test_a_file_that_is_changed_has_another_key(tmp_path: Path) -> None:
    """By its size, or its time in nanoseconds."""
    path = tmp_path / "a.png"

    def key(content: bytes, time: int) -> str:
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        (found,) = file_keys(tmp_path, [path])
        return found

    keys = [key(b"one", 1), key(b"two", 2), key(b"three", 1)]
    assert len({*keys}) == 3
    assert key(b"one", 1) == keys[0]


class TestListing:
    def test_it_gives_what_folders_with_these_names_give(self, photos: Path, write: Write) -> None:
        folders, listed = ImageFolder(str(photos / "train")), ImageFolder(labels=str(write()))
        assert listed.classes == folders.classes
        assert split_of(listed) == split_of(folders)
        for part in ("train", "val", "test"):
            assert np.array_equal(listed.images(part).pixels[:], folders.images(part).pixels[:])

    def test_the_order_of_its_lines_changes_nothing(self, write: Write) -> None:
        before = split_of(ImageFolder(labels=str(path := write())))
        lines = path.read_text().splitlines()[1:]
        assert lines != sorted(lines)
        after = split_of(ImageFolder(labels=str(write(*sorted(lines)))))
        assert [(part, list(names.items())) for part, names in before.items()] == [
            (part, list(names.items())) for part, names in after.items()
        ]

    def test_its_order_is_the_same_on_all_systems(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("a.png", "B.png"):
            (tmp_path / name).touch()
        (tmp_path / "labels.csv").write_text("path,label\na.png,x\nB.png,x\n")
        listing = Listing(tmp_path / "labels.csv", tmp_path)
        monkeypatch.setattr(PurePath, "__lt__", lambda a, b: str(a).lower() < str(b).lower())  # as on Windows
        assert [path.name for path, _ in listing.pairs("train", ["x"])] == ["B.png", "a.png"]

    @pytest.mark.parametrize("between", [",", ";", "\t", ", ", '";"'])
    def test_one_that_a_spreadsheet_saved_is_read(self, write: Write, between: str) -> None:
        """With semicolons where commas are in numbers, names of columns in capitals, and rows of blank cells."""
        expected = split_of(ImageFolder(labels=str(path := write())))
        quote = '"' if '"' in between else ""
        lines = [f"{quote}{line.replace(',', between)}{quote}" for line in path.read_text().splitlines()]
        lines[0] = lines[0].replace("path", "Path").replace("label", "LABEL")
        text = "\r\n".join([between.strip('"'), *lines, between.strip('"'), ""])
        path.write_bytes(text.encode("utf-8-sig"))
        assert split_of(ImageFolder(labels=str(path))) == expected

    def test_capitals_do_not_hide_the_parts(self, photos: Path, write: Write) -> None:
        cells = [line.split(",") for line in write().read_text().split()[1:]]
        lines = [f"{path},{'test' if '/00.' in path else 'train'},{label}" for path, label in cells]
        data = ImageFolder(labels=str(write(*lines, columns="path,Split,label")))
        assert {Path(name).stem for name in data.images("test").names} == {"00"}

    def test_paths_are_relative_to_its_folder_or_to_root(self, photos: Path, write: Write, tmp_path: Path) -> None:
        expected = split_of(ImageFolder(labels=str(path := write())))
        assert split_of(ImageFolder(str(photos), labels="labels.csv")) == expected
        elsewhere = path.rename(tmp_path / "elsewhere.csv")
        assert split_of(ImageFolder(str(photos), labels=str(elsewhere))) == expected
        with pytest.raises(InputError, match=rf"elsewhere.csv, line 2: there is no file {tmp_path}/train/") as error:
            ImageFolder(labels=str(elsewhere)).images("train")
        assert str(error.value).endswith(f": paths are relative to data.root, here '{tmp_path}'")

    def test_a_column_decides_the_parts(self, photos: Path, write: Write) -> None:
        names = [path.relative_to(photos) for path in sorted((photos / "train").rglob("*.*"))]
        splits = ["train"] * 30 + ["val", "test"] * 3
        order = np.random.default_rng(0).permutation(36)
        lines = [f"{splits[place]},{names[place].parent.name},{names[place]}" for place in order]
        data = ImageFolder(labels=str(write(*lines, columns="split,label,path")))
        assert data.given == {"train", "val", "test"}
        for part, found in split_of(data).items():
            assert sorted(found) == [
                str(photos / name) for name, split in zip(names, splits, strict=True) if split == part
            ]

    def test_where_it_knows_a_test_set_only_validation_is_cut_off(self, photos: Path, write: Write) -> None:
        lines = [
            f"{path.relative_to(photos)},{path.parent.name},{path.parent.parent.name}"
            for path in photos.rglob("*.*")
            if path.parent != photos
        ]
        data = ImageFolder(labels=str(write(*lines, columns="path,label,split")))
        assert [len(data.images(part)) for part in ("train", "val", "test")] == [33, 3, 9]

    def test_another_label_counts_at_once_and_decodes_nothing(
        self, photos: Path, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write()
        ImageFolder(labels=str(path)).load("train")
        lines = path.read_text().splitlines()
        monkeypatch.setattr("cifar_lightning.data.folder.decode", None)
        name, before = lines[1].split(",")
        after = next(each for each in ("blue", "red") if each != before)
        images = ImageFolder(labels=str(write(f"{name},{after}", *lines[2:]))).load("train")
        assert images.labels[images.names.index(str(photos / name))] == ["blue", "green", "red"].index(after)

    def test_another_picture_is_decoded(self, photos: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write()
        ImageFolder(labels=str(path)).load("train")
        decoded: list[Path] = []
        monkeypatch.setattr("cifar_lightning.data.folder.decode", lambda file: decoded.append(file) or decode(file))
        path.write_text(path.read_text() + "test/red/00.jpg,red\n")
        assert len(ImageFolder(labels=str(path)).load("train")) == 37
        assert photos / "test/red/00.jpg" in decoded

    def test_a_line_that_is_repeated_is_one_picture(self, write: Write) -> None:
        path = write()
        path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n\n")
        assert len(ImageFolder(labels=str(path)).load("train")) == 36

    def test_a_path_may_be_whole_or_relative_but_is_one(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write()
        monkeypatch.chdir(path.parent)
        first, label = path.read_text().splitlines()[1].split(",")
        path.write_text(f"{path.read_text()}{path.parent / first},not-{label}\n")
        with pytest.raises(InputError, match=f"'not-{label}' in train, but '{label}' in train in line 2"):
            ImageFolder(".", "labels.csv")

    def test_predict_takes_no_photos_of_train_where_a_class_was_added(self, photos: Path, write: Write) -> None:
        write()
        with pytest.raises(InputError, match="'green' is not one of the classes blue, red"):
            _ = ImageFolder(str(photos), "labels.csv", classes=["blue", "red"]).predicted

    @pytest.mark.parametrize(
        ("lines", "columns", "message"),
        [
            (["a,b"], "name,label", "line 1: it has the columns name, label, but path must be one"),
            (["a:b"], "Path:label", "line 1: it has the columns Path:label, but path must be one"),
            (["a,b"], "path,class", "line 1: it has the columns path, class, but label must be one"),
            (["a,b,c"], "path,label,label", "line 1: it has the columns path, label, label, but label must be one"),
            (["{0},red", "gone.jpg,blue"], "path,label", "line 3: there is no file .*gone.jpg"),
            (["{0},red", "{1},"], "path,label", "line 3: the label is empty"),
            (["{0},red", ",red"], "path,label", "line 3: the path is empty"),
            (["{0},red", "{1},red,big"], "path,label", "line 3: 3 values for 2 columns: put one that holds a comma in"),
            (
                ["{0},red", "{1},red", "./{0},blue"],
                "path,label",
                "line 4: .* is 'blue' in train, but 'red' in .*line 2",
            ),
            (
                ["{0},red", "test/../{0},blue"],
                "path,label",
                "line 3: test/../.* is 'blue' in train, but 'red' in train",
            ),
            (["{0},red,train", "{0},red,test"], "path,label,split", "line 3: .*'red' in test, but 'red' in train in"),
            (["{0},red,test"], "path,label,split", "labels.csv holds no classes to train on, .*needed: list photos of"),
            (["{0},red,train", "{1},red,dev"], "path,label,split", "line 3: split is 'dev': it must be train, val or"),
            (["{0},red,train", "{1},red,"], "path,label,split", "line 3: split is ''"),
            (
                ["{0},red,train", "{1},blue,train", "{2},zebra,test"],
                "path,label,split",
                "line 4: 'zebra' is not one of the classes blue, red",
            ),
            (
                ["{0},red", '{1},"red', "{2},red"],
                "path,label",
                "labels.csv, line 3: unexpected end of data: close the quotes",
            ),
            (["{0},red", '{1},"re"d', "{2},red"], "path,label", "labels.csv, line 3: ',' expected after '\"': close"),
            (["{0},red"], "path,label", "labels.csv holds one class .*, at least two are needed: list photos of each"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_line(
        self, photos: Path, write: Write, lines: list[str], columns: str, message: str
    ) -> None:
        names = [f"train/{name}/00.jpg" for name in ("red", "green", "blue")]
        path = write(*(line.format(*names) for line in lines), columns=columns)
        with pytest.raises(InputError, match=message):
            ImageFolder(labels=str(path)).images("test")

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"", r"labels\.csv, line 1: it has no lines, but path must be one"),
            (b"path,label\n\xff\xfe,red\n", r"labels\.csv cannot be read as a CSV file: save it as CSV UTF-8 \("),
            (None, r"labels\.csv' cannot be read \(No such file or directory\)"),
        ],
    )
    def test_what_is_no_such_file_is_named(self, photos: Path, content: bytes | None, sentence: str) -> None:
        if content is not None:
            (photos / "labels.csv").write_bytes(content)
        with pytest.raises(InputError, match=sentence):
            ImageFolder(str(photos), labels="labels.csv")

    @pytest.mark.slow
    def test_other_listed_photos_are_all_predicted_and_leave_the_runs_report_alone(
        self, run: Run, photos: Path, write: Write, tmp_path: Path
    ) -> None:
        """Also where the run knows no root but its listing's."""
        path = write()
        assert run("fit", *BRIEF, "--data", "ImageFolder", "--data.labels", path).code == 0
        best = "runs/cnn/version_0/checkpoints/best.ckpt"

        def count(*words: object) -> int:
            assert run("predict", "--ckpt_path", best, *words, "--output", "p.csv").code == 0
            return len(Path("p.csv").read_text().splitlines()) - 1

        assert count() == 3
        assert count("--data.labels", path.relative_to(tmp_path)) == 3  # the same by another name
        other = path.with_name("other.csv")
        other.write_text(path.read_text())
        assert count("--data.labels", other) == 36
        assert count("--data.root", photos / "train", "--data.labels", "null") == 36
        other.write_text("\n".join(path.read_text().splitlines()[:-1]))  # all of them would be the run's own
        assert run("test", "--ckpt_path", best, "--data.labels", other, "--resamples", 10).code == 0
        assert Path("runs/cnn/version_0/report-other/metrics.json").exists()
        assert not Path("runs/cnn/version_0/report").exists()

    def test_commands_take_it_from_the_checkpoint(self, run: Run, photos: Path, write: Write) -> None:
        write()
        words = ("--data", "ImageFolder", "--data.root", photos, "--data.labels", "labels.csv")
        assert run("fit", *BRIEF, *words).code == 0
        path = "runs/cnn/version_0/checkpoints/best.ckpt"
        assert run("predict", "--ckpt_path", path).code == 0
        rows = Path("runs/cnn/version_0/predictions.csv").read_text().splitlines()
        assert len(rows) == 1 + 3
        new = photos / "test" / "red"  # whose photos are not in the list
        kept = ("--config", "runs/cnn/version_0/config.yaml")  # in which the classes are null
        for words in (("--data.root", new), ("--data.init_args.root", new), (*kept, "--data.root", new)):
            assert run("predict", "--ckpt_path", path, *words, "--output", "new.csv").code == 0
            assert len(Path("new.csv").read_text().splitlines()) == 1 + 3
        others = ("--data.root", photos / "train", "--data.labels", "null", "--output", "others.csv")
        assert run("predict", "--ckpt_path", path, *others).code == 0
        assert len(Path("others.csv").read_text().splitlines()) == 1 + 36
        (photos / "test" / "red" / "00.jpg").rename(photos / "train" / "red" / "new.jpg")
        result = run("test", "--ckpt_path", path, *others[:4], "--resamples", 20)
        assert f"the test set is 3 pictures of {photos / 'train'}, which fit would not use" in result.out
        assert Path("runs/cnn/version_0/report-train/metrics.json").exists()  # the run's own report stays
        result = run("predict", "--ckpt_path", path, "--data.root", photos / "test", "--data.labels", "labels.csv")
        assert result.code == 2
        assert result.err.endswith(
            "error: data.labels 'labels.csv' cannot be read (No such file or directory): "
            "name a CSV file, or null for folders\n",
        )
