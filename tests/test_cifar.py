"""The download of CIFAR-10 and CIFAR-100, against archives of the same layout served from this machine."""

import errno
import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from torchvision import datasets
from torchvision.datasets.utils import calculate_md5

from cifar_lightning.data import CIFAR10, CIFAR100
from cifar_onnx import InputError
from cifar_onnx.images import fingerprint
from tests.conftest import Run, Start

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# The superclass of each class, as it stands in the published file.
COARSE = [
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
]


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Ten images a batch, in the publisher's layout; torchvision is told the checksums."""
    generator = np.random.default_rng(0)
    files = {"batches.meta": pickle.dumps({"label_names": NAMES})}
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        rows = generator.integers(0, 256, (10, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": rows, "labels": list(range(10))})
    return pack(monkeypatch, datasets.CIFAR10, files)


@pytest.fixture
def hundred(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The same of CIFAR-100: an image of each class for training and for the test."""
    generator = np.random.default_rng(1)
    files = {"meta": pickle.dumps({"fine_label_names": [*map(str, range(100))], "coarse_label_names": []})}
    for name in ("train", "test"):
        rows = generator.integers(0, 256, (100, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": rows, "fine_labels": list(range(100)), "coarse_labels": COARSE})
    return pack(monkeypatch, datasets.CIFAR100, files)


def pack(monkeypatch: pytest.MonkeyPatch, known: Any, files: dict[str, bytes]) -> bytes:
    """The archive of these files; torchvision is told their checksums."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{known.base_folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(known, "tgz_md5", hashlib.md5(buffer.getvalue()).hexdigest())
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(known, part, [[name, sums[name]] for name, _ in getattr(known, part)])
    monkeypatch.setattr(known, "meta", {**known.meta, "md5": sums[known.meta["filename"]]})
    return buffer.getvalue()


@pytest.fixture
def requests() -> list[str]:
    """What the server was asked for."""
    return []


@pytest.fixture
def url(archive: bytes, requests: list[str]) -> Iterator[str]:
    """A server with the archive whole, wrong, cut off and absent, and one that it gives only when asked again."""
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            body = {
                "/good.tar.gz": archive,
                "/wrong.tar.gz": archive[:-1] + b"x",
                "/cut.tar.gz": archive[: len(archive) // 2],
                "/late.tar.gz": archive,
            }.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(0 if body is None else len(archive)))
            self.end_headers()
            if requests == ["/late.tar.gz"]:
                over.wait(60)
                return
            self.wfile.write(body or b"")

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        over.set()
        server.shutdown()


class Load:
    """Loading the training images in another process, which prints their fingerprint; picklable."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        self.known = {name: getattr(datasets.CIFAR10, name) for name in ("tgz_md5", "train_list", "test_list", "meta")}

    def __call__(self) -> None:
        for name, value in self.known.items():
            setattr(datasets.CIFAR10, name, value)
        print(fingerprint(CIFAR10(str(self.root), url=self.url).load("train").pixels))


def test_of_eight_at_once_one_downloads_and_all_have_the_same(
    url: str, requests: list[str], tmp_path: Path, start: Start
) -> None:
    root = tmp_path / "data"
    children = [start(function=Load(root, f"{url}/good.tar.gz")) for _ in range(8)]
    results = [child.wait() for child in children]
    assert [result.code for result in results] == [0] * 8, results[0].err
    expected = fingerprint(CIFAR10(str(root)).load("train").pixels)
    assert [result.out.splitlines()[-1] for result in results] == [expected] * 8
    assert requests == ["/good.tar.gz"]


def test_where_the_one_that_downloads_is_killed_the_next_takes_over(
    url: str, requests: list[str], tmp_path: Path, start: Start
) -> None:
    root = tmp_path / "data"
    load = Load(root, f"{url}/late.tar.gz")
    first = start(function=load)
    assert first.wait_for(lambda: requests)
    second = start(function=load)
    assert second.wait_for(lambda: "waiting for another process that prepares CIFAR-10" in second.log.read_text())
    first.process.kill()
    assert second.wait().code == 0
    assert requests == ["/late.tar.gz"] * 2
    assert sorted(path.name for path in root.iterdir()) == [
        ".cifar-10.lock",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
    ]


def test_a_good_archive_is_downloaded_read_and_kept(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CIFAR10(str(tmp_path), url=f"{url}/good.tar.gz")
    train, test = data.load("train"), data.load("test")
    assert train.pixels.shape == (50, 32, 32, 3)
    assert test.labels.tolist() == list(range(10))
    assert data.classes == NAMES
    offline = CIFAR10(str(tmp_path), url="http://127.0.0.1:1/gone.tar.gz")
    hashed = Mock(side_effect=calculate_md5)
    monkeypatch.setattr("torchvision.datasets.utils.calculate_md5", hashed)
    assert np.array_equal(offline.load("train").pixels, train.pixels)
    assert hashed.call_count == 7  # each file once
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_an_archive_that_was_put_there_is_unpacked(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive)
    assert len(CIFAR10(str(tmp_path), url="http://127.0.0.1:1/gone").load("test")) == 10


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("wrong.tar.gz", "the download has md5"),
        ("cut.tar.gz", "the connection ended after|IncompleteRead"),
        ("absent.tar.gz", "404"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_leaves_nothing(
    url: str, tmp_path: Path, file: str, reason: str
) -> None:
    root = tmp_path / "data"
    with pytest.raises(InputError, match=reason) as error:
        CIFAR10(str(root), url=f"{url}/{file}").load("train")
    for word in (f"{url}/{file}", f"put cifar-10-python.tar.gz into {root}", "--data.url", "--data Digits"):
        assert word in str(error.value)
    assert [path.name for path in root.iterdir()] == [".cifar-10.lock"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_no_fault_of_the_network(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("cifar_lightning.data.cifar.track", Mock(side_effect=OSError(number, os.strerror(number))))
    sentence = rf"^CIFAR-10 cannot be unpacked into .* \(.*{os.strerror(number)}\): name another --data\.root$"
    with pytest.raises(InputError, match=sentence):
        CIFAR10(str(tmp_path), url=f"{url}/good.tar.gz").load("train")


def test_where_nothing_can_be_written_no_name_is_tried_after_the_other(
    archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tempfile does on Windows, which takes a folder that must not be written for a name that is there already."""
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive)
    monkeypatch.setattr("tempfile.mkdtemp", lambda *_, **__: pytest.fail("for hours"))
    monkeypatch.setattr(Path, "touch", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(InputError, match=r"cannot be unpacked into .*Permission denied\): name another --data\.root$"):
        CIFAR10(str(tmp_path)).load("train")


def test_a_damaged_archive_is_named_and_left_to_the_user(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive[:-9])
    with pytest.raises(InputError, match=r"cifar-10-python.tar.gz is not CIFAR-10's file, or is damaged: its md5 is"):
        CIFAR10(str(tmp_path)).load("train")


def test_nothing_is_downloaded_into_a_folder_of_photos(tmp_path: Path) -> None:
    for name in ("cat/a.JPG", "dog/b.jpeg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="holds folders of photos and no CIFAR-10: use --data ImageFolder"):
        CIFAR10(str(tmp_path), url="http://127.0.0.1:9/").load("train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat", "dog"]


def test_the_default_command_fails_in_one_sentence_without_a_network(run: Run) -> None:
    result = run("fit", "--data.url", "http://127.0.0.1:1/cifar-10-python.tar.gz")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("error: CIFAR-10 is not in data and could not be downloaded from ")
    assert "Traceback" not in result.err


def test_fit_trains_on_the_downloaded_files(url: str, run: Run) -> None:
    result = run("fit", "--data.url", f"{url}/good.tar.gz", "--trainer.max_epochs", 1, "--data.val_fraction", 0.2)
    assert result.code == 0, result.err
    assert Path("data", "cifar-10-batches-py").is_dir()


class TestCIFAR100:
    def test_the_archive_is_unpacked_beside_cifar_10_and_read(
        self, archive: bytes, hundred: bytes, tmp_path: Path
    ) -> None:
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive)
        (tmp_path / "cifar-100-python.tar.gz").write_bytes(hundred)
        data = CIFAR100(root=str(tmp_path))
        assert len(data.classes) == len(set(data.classes)) == 100
        assert (data.classes[0], data.classes[47], data.classes[99]) == ("apple", "maple_tree", "worm")
        for part in ("train", "test"):
            images = data.load(part)
            assert images.pixels.shape == (100, 32, 32, 3)
            assert images.labels.tolist() == list(range(100))
        assert len(CIFAR10(str(tmp_path)).load("train")) == 50
        assert len(data.load("test")) == 100

    def test_coarse_labels_are_those_of_the_published_file(self, hundred: bytes, tmp_path: Path) -> None:
        (tmp_path / "cifar-100-python.tar.gz").write_bytes(hundred)
        data = CIFAR100(root=str(tmp_path), labels="coarse")
        assert len(data.classes) == 20
        assert (data.classes[0], data.classes[14], data.classes[19]) == ("aquatic_mammals", "people", "vehicles_2")
        assert data.load("train").labels.tolist() == COARSE

    def test_labels_of_neither_kind_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"data\.labels is 'course': it must be one of fine, coarse"):
            CIFAR100(labels="course")  # type: ignore[arg-type]

    def test_what_cannot_be_had_names_the_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"CIFAR-100 is not in .*put cifar-100-python.tar.gz into "):
            CIFAR100(root=str(tmp_path), url="http://127.0.0.1:1/gone").load("train")

    def test_fit_and_test_know_the_labels_that_were_asked_for(self, hundred: bytes, run: Run) -> None:
        Path("data").mkdir()
        Path("data", "cifar-100-python.tar.gz").write_bytes(hundred)
        words = ("--data", "CIFAR100", "--data.labels", "coarse", "--data.val_fraction", 0.4)
        assert run("fit", *words, "--trainer.max_epochs", 1).code == 0
        result = run("test", "--ckpt_path", "runs/cnn/version_0/checkpoints/best.ckpt", "--resamples", 10)
        assert result.code == 0, result.err
        rows = Path("runs/cnn/version_0/report/per_class.csv").read_text().splitlines()
        assert len(rows) == 1 + 20
