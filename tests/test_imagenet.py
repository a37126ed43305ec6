"""ImageNet's layout, with invented pictures of five of its classes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from cifar_lightning.data import ImageNet
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run

# As ImageNet has them: two cranes, and numbers that follow neither names nor wnids.
SYNSETS = {
    "n02012849": (135, "crane"),
    "n03126707": (517, "crane"),
    "n01440764": (449, "tench, Tinca tinca"),
    "n01443537": (2, "goldfish, Carassius auratus"),
    "n02123394": (1, "Persian cat"),
}
WNIDS = sorted(SYNSETS)
NAMES = ["tench", "goldfish", "crane (n02012849)", "Persian cat", "crane (n03126707)"]
TRUTH = ["n02123394", "n01440764", "n03126707", "n01440764", "n02012849", "n01443537"]  # of val's files
KEYS = ("ILSVRC2012_ID", "WNID", "words")  # of meta.mat


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12 + seed % 9, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


def name(number: int) -> str:
    return f"ILSVRC2012_val_{number + 1:08}.JPEG"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`train/<wnid>/*.JPEG`, and `val` flat, without a list."""
    for place, wnid in enumerate(WNIDS):
        for number in range(8):
            paint(tmp_path / "imagenet" / "train" / wnid / f"{wnid}_{number}.JPEG", 10 * place + number)
    for number in range(len(TRUTH)):
        paint(tmp_path / "imagenet" / "val" / name(number), 100 + number)
    return tmp_path / "imagenet"


def kaggle(folder: Path) -> None:
    rows = [f"{Path(name(number)).stem},{wnid} 85 1 499 272 {wnid} 1 1 9 9 " for number, wnid in enumerate(TRUTH)]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\n")
    lines = [f"{wnid} {SYNSETS[wnid][1]}" for wnid in WNIDS]
    (folder / "LOC_synset_mapping.txt").write_text("\n".join(lines) + "\n")


def devkit(folder: Path) -> None:
    numbers = [str(SYNSETS[wnid][0]) for wnid in TRUTH]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(numbers) + "\n")
    rows = [(number, wnid, words, 0) for wnid, (number, words) in SYNSETS.items()] + [(1001, "n00001740", "entity", 2)]
    kinds = [(key, "O") for key in (*KEYS, "num_children")]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, kinds)[:, None]})


def folders(root: Path) -> None:
    for number, wnid in enumerate(TRUTH):
        (root / "val" / wnid).mkdir(exist_ok=True)
        (root / "val" / name(number)).rename(root / "val" / wnid / name(number))


def load(root: Path, **settings: str) -> ImageNet:
    return ImageNet(str(root), image_size=16, **settings)  # type: ignore[arg-type]


class TestImageNet:
    @pytest.mark.parametrize("write", [kaggle, devkit])
    def test_a_flat_val_is_the_test_set_by_either_list(self, root: Path, write: Callable[[Path], None]) -> None:
        write(root)
        data = load(root)
        assert data.classes == NAMES
        test = data.images("test")
        assert [Path(each).name for each in test.names] == [name(number) for number in range(6)]
        assert [WNIDS[label] for label in test.labels] == TRUTH
        assert [len(data.images(part)) for part in ("train", "val")] == [35, 5]
        for part in ("train", "val"):
            images = data.images(part)
            assert [Path(each).parent.name for each in images.names] == [WNIDS[label] for label in images.labels]

    def test_a_folder_of_lists_that_is_none_is_refused(self, root: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"data\.lists '.*nowhere' is not a folder"):
            load(root, lists=str(tmp_path / "nowhere"))

    def test_lists_may_lie_elsewhere(self, root: Path, tmp_path: Path) -> None:
        kaggle(tmp_path)
        assert [WNIDS[label] for label in load(root, lists=str(tmp_path)).images("test").labels] == TRUTH

    def test_folders_of_val_need_no_list(self, root: Path) -> None:
        folders(root)
        data = load(root)
        assert data.classes == WNIDS
        test = data.images("test")
        assert sorted(WNIDS[label] for label in test.labels) == sorted(TRUTH)
        assert [Path(each).parent.name for each in test.names] == [WNIDS[label] for label in test.labels]

    def test_classes_are_in_torchvisions_order(self, root: Path) -> None:
        devkit(root)
        reference = datasets.ImageFolder(str(root / "train"))
        images = load(root).load("train")
        assert list(zip(images.names, images.labels.tolist(), strict=True)) == reference.samples

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("words.txt", "n00001740\tentity\n" + "".join(f"{key}\t{names}\n" for key, (_, names) in SYNSETS.items())),
            (
                "imagenet_class_index.json",
                json.dumps({str(place): [key, SYNSETS[key][1]] for place, key in enumerate(WNIDS)}),
            ),
            (  # as an editor on Windows saves it
                "LOC_synset_mapping.txt",
                "\ufeff" + "".join(f"{key} {names}\n" for key, (_, names) in SYNSETS.items()) + " \n",
            ),
        ],
    )
    def test_names_come_from_any_of_the_known_lists(self, root: Path, file: str, content: str) -> None:
        (root / file).write_text(content, encoding="utf-8")
        assert load(root).classes == NAMES

    def test_a_checkpoint_needs_no_training_photos_to_be_tested(self, root: Path, run: Run) -> None:
        kaggle(root)
        words = ("--data", "ImageNet", "--data.root", root, "--data.image_size", 16)
        assert run("fit", *BRIEF, *words).code == 0
        (root / "train").rename(root / "elsewhere")
        path = "runs/cnn/version_0/checkpoints/best.ckpt"
        result = run("test", "--ckpt_path", path, "--resamples", 10)
        assert result.code == 0, result.err
        rows = Path("runs/cnn/version_0/report/predictions.csv").read_text().splitlines()[1:]
        assert len(rows) == 6
        assert all(NAMES[WNIDS.index(wnid)] in row for row, wnid in zip(rows, TRUTH, strict=True))
        new = ("--data.root", root / "elsewhere", "--output", "new.csv")
        assert run("predict", "--ckpt_path", path, *new).code == 0
        assert len(Path("new.csv").read_text().splitlines()) == 1 + 40

    def test_a_name_that_two_classes_have_is_known_where_there_is_one_of_them(self, root: Path) -> None:
        kaggle(root)
        folders(root)
        shutil.rmtree(root / "train")
        shutil.rmtree(root / "val" / "n03126707")
        test = ImageNet(str(root), image_size=16, classes=NAMES).images("test")
        left = sorted(wnid for wnid in TRUTH if wnid != "n03126707")
        assert [WNIDS[label] for label in test.labels] == left

    def test_what_is_wrong_is_one_sentence(self, root: Path) -> None:
        with pytest.raises(InputError, match=r"neither LOC_val_solution.csv nor ILSVRC.*: name .* by --data.lists"):
            load(root).images("test")
        devkit(root)
        truth = root / "ILSVRC2012_validation_ground_truth.txt"
        lines = truth.read_text().splitlines()
        truth.write_text("\n".join(lines[:-1]))
        with pytest.raises(InputError, match=r"has 5 lines, but .*val 6 files: it needs one for each"):
            load(root).images("test")
        truth.write_text("\n".join([*lines[:-1], "3"]))
        with pytest.raises(InputError, match=r"ground_truth.txt, line 6: '3' is not an ILSVRC2012_ID of .*meta.mat"):
            load(root).images("test")
        (root / "meta.mat").rename(root / "beta.mat")
        with pytest.raises(InputError, match=r"ground_truth.txt needs meta.mat beside it"):
            load(root).images("test")
        (root / "meta.mat").write_bytes(b"nonsense")
        with pytest.raises(InputError, match=r"^\S+meta\.mat is not that of the development kit"):
            load(root)
        (root / "words.txt").write_text("n01440764\n")
        with pytest.raises(InputError, match=r"words.txt is not a list of wnids with names"):
            load(root)
        (root / "words.txt").unlink()
        kaggle(root)
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_00000001, \n")
        with pytest.raises(InputError, match=r"LOC_val_solution.csv, line 2: no ImageId, or no PredictionString"):
            load(root).images("test")
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1\n")
        with pytest.raises(InputError, match=r"LOC_val_solution.csv has no line for .*_00000002.JPEG"):
            load(root).images("test")
        (root / "LOC_val_solution.csv").write_text('ImageId,PredictionString\na,n01440764\nb,"n01440764\nc,n01440764\n')
        with pytest.raises(InputError, match=r"LOC_val_solution.csv, line 3: unexpected end of data: close the quotes"):
            load(root).images("test")
        (root / "LOC_val_solution.csv").write_text('ImageId,PredictionString\n"' + "x" * 200_000)
        with pytest.raises(InputError, match=r"LOC_val_solution.csv, line 2: field larger .*: close the quotes"):
            load(root).images("test")
        (root / "LOC_val_solution.csv").unlink()
        savemat(root / "meta.mat", {"synsets": np.array([("one", "a", "b")], [(key, "O") for key in KEYS])})
        with pytest.raises(InputError, match=r"^\S+meta\.mat is not that of the development kit \(invalid literal"):
            load(root).images("test")

    def test_a_class_of_val_that_train_lacks_is_named(self, root: Path) -> None:
        kaggle(root)
        (root / "train" / "n02123394").rename(root / "n02123394")
        with pytest.raises(InputError, match=r"val_00000001.JPEG: 'n02123394' is not one of the 4 classes"):
            load(root).images("test")

    def test_without_train_there_is_nothing_to_train_on(self, root: Path) -> None:
        with pytest.raises(InputError, match=r"train has no train/, with a folder of pictures for each wnid"):
            load(root / "train")
