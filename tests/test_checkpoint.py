"""Checkpoints on disk: whole or absent, and never code."""

import errno
import io
import os
import pickle
import random
import resource
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import yaml
from jsonargparse import Namespace

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import runs
from cifar_lightning.callbacks import EpochLines
from cifar_lightning.cli.config_file import given_names
from cifar_lightning.cli.from_checkpoint import check_resumable, choose_photos, parser_defaults
from cifar_lightning.data.match import check_match
from cifar_onnx import InputError
from tests.conftest import BRIEF, Run, Start, command_line

KEPT: dict[str, Any] = {
    "state_dict": {"weight": torch.arange(200.0)},
    "hyper_parameters": {"classes": []},
    "datamodule_hyper_parameters": {"_class_path": ""},
    "run": {"experiment": "", "seed": 0, "threads": 1, "metrics": {}, "validated": True, "train_loss": (0.0, 0)},
    "new": False,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint."""
    checkpoints.write(KEPT, tmp_path / "kept" / "x.ckpt")
    return tmp_path / "kept" / "x.ckpt"


def alone(path: Path) -> bool:
    return [other.name for other in path.parent.iterdir()] == [path.name]


class TestWhole:
    def test_it_opens_with_plain_torch_too(self, path: Path) -> None:
        for kept in (checkpoints.load(path), torch.load(path, weights_only=True)):
            assert torch.equal(kept["state_dict"]["weight"], torch.arange(200.0))
        assert zipfile.ZipFile(path).testzip() is None

    def test_a_thousand_flipped_bits_and_a_hundred_cuts_are_found(self, path: Path) -> None:
        data, generator = path.read_bytes(), random.Random(0)
        for _ in range(1000):
            broken = bytearray(data)
            broken[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            path.write_bytes(broken)
            with pytest.raises(InputError, match=r"x\.ckpt: damaged"):
                checkpoints.load(path)
        for _ in range(100):
            path.write_bytes(data[: generator.randrange(len(data))])
            with pytest.raises(InputError, match=r"x\.ckpt: damaged"):
                checkpoints.load(path)

    @pytest.mark.parametrize(
        "other",
        [
            [],
            *({**KEPT, key: []} for key in KEPT if key != "new"),
            *({other: KEPT[other] for other in KEPT if other != key} for key in KEPT if key != "new"),
            {**KEPT, "hyper_parameters": {"classes": "ab"}},
            *({**KEPT, "run": {**KEPT["run"], key: None}} for key in KEPT["run"]),
        ],
    )
    def test_a_whole_file_of_something_else_is_refused(self, path: Path, other: Any) -> None:
        checkpoints.write(other, path)
        with pytest.raises(InputError, match=r"x\.ckpt: not a checkpoint written by this project's fit"):
            checkpoints.load(path)

    @pytest.mark.parametrize("step", ["open", "write", "fsync", "rename", "fsync folder"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
    def test_whatever_fails_the_old_or_the_new_is_there(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
    ) -> None:
        sabotage(monkeypatch, step, lambda: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
        monkeypatch.setattr(time, "sleep", lambda _: None)
        with pytest.raises(
            InputError, match=r"x\.ckpt cannot be saved .*; it takes 0\.\d MB, [\d,.]+ MB are free"
        ) as error:
            checkpoints.write({**KEPT, "new": True}, path)
        assert os.strerror(code) in str(error.value)
        assert checkpoints.load(path)["new"] == (step == "fsync folder")
        assert alone(path)

    def test_who_reads_the_old_one_where_that_keeps_it_from_being_replaced_is_waited_for(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace, left = Path.replace, [PermissionError("it is read"), PermissionError("still")]  # as Windows has it

        def put(self: Path, to: Path) -> None:
            if left:
                raise left.pop()
            replace(self, to)

        monkeypatch.setattr(Path, "replace", put)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        checkpoints.write({**KEPT, "new": True}, path)
        assert checkpoints.load(path)["new"]

    @pytest.mark.parametrize("step", ["open", "write", "fsync", "rename", "fsync folder"])
    def test_wherever_it_is_killed_the_old_or_the_new_is_there(self, path: Path, start: Start, step: str) -> None:
        result = start(path, step, function=killed_while_writing).wait()
        assert result.code == -signal.SIGKILL
        assert checkpoints.load(path)["new"] == (step == "fsync folder")
        checkpoints.write(KEPT, path)
        assert alone(path)

    def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(self, start: Start, tmp_path: Path) -> None:
        """After an epoch files are limited to 2 MB, which stands for the disk; a checkpoint takes 4.3 with Adam's."""
        result = start(function=short_of_disk).wait()
        assert result.code == 2
        sentence = "ckpt cannot be saved (File too large; it takes 4.3 MB"
        assert sentence in result.err.splitlines()[-1], result.err
        assert "Traceback" not in result.err
        folder = tmp_path / "runs" / "cnn" / "version_0" / "checkpoints"
        assert {path.name: checkpoints.load(path)["epoch"] for path in folder.iterdir()} == {
            "best.ckpt": 0,
            "last.ckpt": 0,
        }


def sabotage(patch: pytest.MonkeyPatch, step: str, act: Callable[[], object]) -> None:
    """Make one step of `write` fail."""
    calls = {"fsync": 0}
    opened, fsync, replace = Path.open, os.fsync, Path.replace

    class Writer(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(data)[:100])
            return act()  # type: ignore[return-value]

    def opening(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode != "wb":
            return opened(self, mode, *args, **kwargs)
        if step == "open":
            act()
        return Writer(self, mode) if step == "write" else opened(self, mode, *args, **kwargs)

    def syncing(descriptor: int) -> None:
        calls["fsync"] += 1
        if step == ("fsync", "fsync folder")[calls["fsync"] - 1]:
            act()
        fsync(descriptor)

    patch.setattr(Path, "open", opening)
    patch.setattr(os, "fsync", syncing)
    patch.setattr(Path, "replace", lambda self, to: act() if step == "rename" else replace(self, to))


def killed_while_writing(path: Path, step: str) -> None:
    sabotage(pytest.MonkeyPatch(), step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    checkpoints.write({**KEPT, "new": True}, path)


def short_of_disk() -> int:
    def fill(self: EpochLines, trainer: L.Trainer, *_: object) -> None:
        if trainer.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    EpochLines.on_train_epoch_start = fill  # type: ignore[method-assign]
    return command_line("fit", *map(str, BRIEF), "--trainer.max_epochs", "3")


class Marks:
    """Code that leaves a file behind when a checkpoint runs it."""

    def __init__(self, by: Callable[..., object], *args: object) -> None:
        self.by, self.args = by, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.by, self.args


def hostile(marker: Path) -> dict[str, dict[str, Any]]:
    """Checkpoints that would make a file, from a real one: what is replaced in it."""
    touch = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    module, words = {"class_path": "marker.Net"}, '{"class_path": "marker.Net"}'

    def net(value: object) -> dict[str, Any]:
        return {"hyper_parameters": {"net": value}}

    def inside(value: object) -> dict[str, Any]:
        return net({"class_path": "torch.nn.DataParallel", "init_args": {"module": value}})

    def taught(**settings: object) -> dict[str, Any]:
        return {
            "hyper_parameters": {"loss": {"class_path": "cifar_lightning.distill.Distillation", "init_args": settings}}
        }

    def data(**settings: object) -> dict[str, Any]:
        return {"datamodule_hyper_parameters": settings}

    activation = {"in_channels": 3, "out_channels": 4, "activation_layer": '{"class_path": "marker.Net"}'}
    return {
        "a call": {"extra": Marks(eval, touch)},
        "a call in the weights": {"state_dict": {"weight": Marks(exec, touch)}},
        "a shell": {"extra": Marks(os.system, f"touch {marker}")},
        "a net": net(module),
        "a net as a word": net("marker.Net"),
        "a net as JSON": net(words),
        "a net as YAML": net("class_path: marker.Net"),
        "a net in a file": net("evil.yaml"),
        "a net in a file without an ending": net("evil"),
        "a net in a net": inside(module),
        "a net in a net as a word": inside("marker.Net"),
        "a net in a net as JSON": inside(words),
        "a net in a net in a file": inside("evil"),
        "a net of other letters": net({"class_path": "marker.N·et"}),
        "a net that is hidden": net({"class_path": "marker.℘"}),
        "an argument that is called": net(
            {"class_path": "torchvision.ops.Conv2dNormActivation", "init_args": activation}
        ),
        "a program of torch": net({"class_path": "torch.utils.model_dump.__main__.X"}),
        "a function of torch": net({"class_path": "torch.hub.load", "init_args": {}}),
        "a module in torch": {"hyper_parameters": {"optimizer": {"class_path": "torch.os.system"}}},
        "an optimizer": {"hyper_parameters": {"optimizer": module}},
        "an optimizer as JSON": {"hyper_parameters": {"optimizer": words}},
        "a schedule": {"hyper_parameters": {"scheduler": module}},
        "a factor": {"hyper_parameters": {"lr_factors": {"net": module}}},
        "a factor as JSON": {"hyper_parameters": {"lr_factors": words}},
        "a loss": {"hyper_parameters": {"loss": module}},
        "a loss with a net for a teacher": taught(teacher=module),
        "a loss with its weight in a file": taught(teacher="x.ckpt", weight="evil.yaml"),
        "data": data(_class_path="marker.Data"),
        "data as JSON": data(_class_path=words),
        "an augmentation": data(augment=[module]),
        "an augmentation as JSON": data(augment=words),
        "an augmentation in a file": data(augment=["evil.yaml"]),
        "an augmentation in a set": data(augment={words}),
        "a mix": data(mix=module),
        "a mix as JSON": data(mix=words),
    }


CODE = ("a call", "a call in the weights", "a shell")  # which loading would run; the others are names of classes


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made by the import of the module `marker`, or by any other code of a hostile checkpoint."""
    (tmp_path / "marker.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'MARK')!r}).touch()\n"
        "from cifar_lightning.nets import CNN\nclass Net(CNN): pass\n"
    )
    for name in ("evil", "evil.yaml"):
        (tmp_path / name).write_text("class_path: marker.Net\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("marker", None)
    return tmp_path / "MARK"


class TestNoCode:
    @pytest.mark.parametrize(
        ("name", "environment"), [*((name, "0") for name in hostile(Path())), *((name, "1") for name in CODE)]
    )
    def test_hostile_checkpoints_are_refused_by_name_and_nothing_runs(
        self, run: Run, checkpoint: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, name: str, environment: str
    ) -> None:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", environment)
        kept = checkpoints.load(checkpoint)
        for key, value in hostile(marker)[name].items():
            kept[key] = {**kept[key], **value} if isinstance(value, dict) else value
        checkpoints.write(kept, "bad.ckpt")
        assert not marker.exists()
        for command in ("fit", "test", "export"):
            result = run(command, "--ckpt_path", "bad.ckpt")
            assert result.code == 2
            assert "error: bad.ckpt: " in result.err
            assert "Traceback" not in result.err
        assert not marker.exists()

    def test_the_name_of_a_teacher_is_not_read_as_settings(self, run: Run, checkpoint: Path, marker: Path) -> None:
        kept = checkpoints.load(checkpoint)
        loss = {"class_path": "cifar_lightning.distill.Distillation", "init_args": {"teacher": "evil.yaml"}}
        kept["hyper_parameters"]["loss"] = loss
        checkpoints.write(kept, "taught.ckpt")
        assert run("test", "--ckpt_path", "taught.ckpt", "--resamples", 10).code == 0
        result = run("fit", "--ckpt_path", "taught.ckpt", "--trainer.max_epochs", 3)
        assert result.code == 2
        assert "error: evil.yaml: damaged, or not a checkpoint" in result.err
        assert not marker.exists()

    def test_the_set_would_do_harm_if_it_were_let(self, marker: Path) -> None:
        for name in CODE:
            checkpoints.write({**KEPT, **hostile(marker)[name]}, "bad.ckpt")
            torch.load("bad.ckpt", weights_only=False)
            assert marker.exists()
            marker.unlink()

    def test_an_exported_file_is_no_checkpoint(self, run: Run) -> None:
        Path("model.onnx").write_bytes(b"\x08\x08")
        assert run("test", "--ckpt_path", "model.onnx").err.endswith("judged by python -m cifar_onnx evaluate\n")

    def test_a_plain_pickle_and_an_old_file_are_refused(self, run: Run, marker: Path) -> None:
        Path("a.ckpt").write_bytes(pickle.dumps(Marks(os.system, f"touch {marker}")))
        torch.save(Marks(os.system, f"touch {marker}"), "b.ckpt", _use_new_zipfile_serialization=False)
        for name in ("a.ckpt", "b.ckpt"):
            assert f"error: {name}: damaged, or not a checkpoint" in run("test", "--ckpt_path", name).err
        assert not marker.exists()

    def test_a_folder_is_none_but_says_which_is_in_it(self, tmp_path: Path) -> None:
        for number, age in ((9, 1), (10, 0)):
            kept = tmp_path / f"version_{number}" / "checkpoints" / "best.ckpt"
            kept.parent.mkdir(parents=True)
            kept.touch()
            os.utime(kept, (1e9 - age, 1e9 - age))
        for folder in (tmp_path, tmp_path / "version_10"):
            with pytest.raises(InputError, match=f"{folder}: no such checkpoint .*: did you mean {kept}\\?"):
                checkpoints.load(folder)

    @pytest.mark.parametrize("url", ["https://example.com/x.ckpt", "s3://bucket/x.ckpt", "file:///x.ckpt"])
    def test_an_address_is_no_checkpoint(self, run: Run, url: str) -> None:
        result = run("test", "--ckpt_path", url)
        assert result.code == 2
        assert f"error: {url}: an address is not taken as a checkpoint" in result.err

    def test_it_cannot_be_switched_off(self, run: Run, checkpoint: Path) -> None:
        result = run("test", "--ckpt_path", checkpoint, "--weights_only", "false")
        assert result.code == 2
        assert "there is no option 'weights_only'" in result.err

    def test_with_leave_the_module_is_imported_and_named(self, run: Run, checkpoint: Path, marker: Path) -> None:
        kept = checkpoints.load(checkpoint)
        kept["hyper_parameters"]["net"]["class_path"] = "marker.Net"
        checkpoints.write(kept, "own.ckpt")
        refused = run("test", "--ckpt_path", "own.ckpt")
        assert refused.code == 2
        assert "own.ckpt: marker.Net is not a class of this project or its libraries" in refused.err
        assert "if you trust that code, add --allow_custom_classes" in refused.err
        assert not marker.exists()
        result = run("test", "--ckpt_path", "own.ckpt", "--allow_custom_classes")
        assert result.code == 0, result.err
        assert "importing marker, which own.ckpt names" in result.out
        assert marker.exists()
        kept["hyper_parameters"]["net"]["class_path"] = "marker.Nett"  # as it was called once
        checkpoints.write(kept, "own.ckpt")
        result = run("test", "--ckpt_path", "own.ckpt", "--allow_custom_classes")
        assert (result.code, result.err) == (2, "error: own.ckpt: marker has no 'Nett': did you mean 'Net'?\n")

    def test_classes_that_the_user_names_need_none(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """As a job script does that resumes its run; what the run's own config names is none of these."""
        Path("lab").mkdir()
        Path("lab/parts.py").write_text(
            "from torch import nn\nfrom cifar_lightning.augment import Mirror\n"
            "from cifar_lightning.data import Digits\n"
            "class Flat(nn.Flatten): pass\nclass Turned(Mirror): pass\nclass Scans(Digits): pass\n"
            "class Net(nn.Sequential):\n"
            "    def __init__(self, num_classes: int, first: nn.Module, note: str):\n"
            "        super().__init__(first, nn.Linear(3072, num_classes))\n"
        )
        monkeypatch.syspath_prepend(Path.cwd())
        settings = {"first": {"class_path": "lab.parts.Flat"}, "note": "a/b"}
        model = {"net": {"class_path": "lab.parts.Net", "init_args": settings}}
        Path("job.yaml").write_text(yaml.safe_dump({"model": model, "data": {"class_path": "lab.parts.Scans"}}))
        job = ("fit", "--config", "job.yaml", *BRIEF[2:], "--ckpt_path", "last")
        mirrored = "--data.augment=[{class_path: lab.parts.Turned}]"
        assert run(*job, mirrored).code == 0
        bare = *job[:1], *job[3:], mirrored
        for words, refused in ((job, "lab.parts.Turned is not a class of this"), (bare, "'a/b' may be more than a")):
            runs.record(Path("runs/cnn/version_0"), finished=False)
            result = run(*words)
            assert (result.code, refused in result.err) == (2, True), result.err
        result = run(*job, mirrored)
        assert (result.code, "resuming runs/cnn/version_0" in result.err) == (0, True), result.err
        ckpt = "runs/cnn/version_0/checkpoints/best.ckpt"
        result = run("test", "--config", "job.yaml", mirrored, "--ckpt_path", ckpt, "--resamples", 2)
        assert result.out.endswith(f" export --ckpt_path {ckpt} --allow_custom_classes --config job.yaml\n")

    @pytest.mark.parametrize(
        ("words", "config"),
        [
            (["--data", "a.B", "--output", "c.D"], {}),
            (["--data={class_path: a.B, init_args: {root: c.D}}"], {}),
            (["--data.init_args={augment: [a.B], root: c.D}"], {}),
            (["--data.class_path=a.B", "--data.root=c.D", "--data.init_args.labels", "c.D"], {}),
            (["--data.augment+", "a.B", "--data.cache_dir", "c.D"], {}),
            (["--data.init_args.mix={class_path: a.B}", "c.D: {"], {}),
            (["--model={net: a.B, init_from: c.D}"], {}),
            (["--model.net.init_args.first", "a.B", "--model.init_from=c.D"], {}),
            (["--model.net", "a.B", "--model.loss.teacher", "file.ckpt"], {"experiment": "c.D"}),
            (["--model=&all {again: *all, net: a.B}"], {}),
            (["--data.mix=" + 5000 * "1", "--data.augment=" + 9999 * "[", "--data.mix=a.B"], {}),  # neither is YAML
            ([], {"data": "a.B"}),
            ([], {"data": {"class_path": "a.B", "root": "c.D"}}),
            ([], {"data": {"init_args": {"augment": [{"class_path": "a.B"}], "labels": "c.D"}}}),
            ([], {"model": {"net": {"init_args": {"first": "a.B"}}, "init_from": "c.D"}}),
        ],
    )
    def test_names_of_classes_are_told_from_those_of_files(
        self, tmp_path: Path, words: list[str], config: dict[str, Any]
    ) -> None:
        (tmp_path / "file.ckpt").touch()
        assert given_names(words, [config]) == {"a.B"}

    @pytest.mark.parametrize(
        "words",
        [
            ("export", "--output", "marker.Net"),
            ("test", "--groups", "marker.Net"),
            ("fit", "--model.init_from", "marker.Net"),
            ("fit", "--data={class_path: Digits, init_args: {root: marker.Net}}"),
            ("fit", "--config", "own.yaml"),
            ("fit", "--model.net.note", "./marker.Net"),
        ],
    )
    def test_what_the_user_names_for_another_purpose_is_no_class(
        self, run: Run, checkpoint: Path, words: tuple[str, ...]
    ) -> None:
        """Such as model.onnx, beside a stranger's model.py."""
        Path("marker.py").write_text("raise SystemExit('it has been imported')")
        Path("own.yaml").write_text("experiment: marker.Net\nmodel: {init_from: marker.Net}\n")
        kept = checkpoints.load(checkpoint)
        kept["hyper_parameters"]["net"]["class_path"] = "marker.Net"
        checkpoints.write(kept, "own.ckpt")
        result = run(*words, "--ckpt_path", "own.ckpt")
        assert (result.code, "marker.Net is not a class of this project" in result.err) == (2, True), result.err

    def test_where_to_download_from_and_to_write_is_not_the_checkpoints_matter(self, checkpoint: Path) -> None:
        kept = checkpoints.load(checkpoint)
        other = {"url": "http://127.0.0.1:9/evil", "cache_dir": "/evil", "memory": 1e9}
        kept["datamodule_hyper_parameters"] |= other
        assert parser_defaults(kept)["data"]["init_args"].keys() & other.keys() == set()


def trained(
    batch: int = 0, lr: float = 0.1, scheduled: bool = False, factors: dict[str, float] | None = None
) -> dict[str, Any]:
    """What a checkpoint says of a run by Adam, so many batches into an epoch."""
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": lr, "betas": (0.9, 0.999)}}
    scheduler = {"class_path": "StepLR", "init_args": {"step_size": 1}} if scheduled else None
    return {
        "optimizer_states": [{}],
        "hyper_parameters": {
            "classes": ["a", "b"],
            "optimizer": optimizer,
            "scheduler": scheduler,
            "lr_factors": factors,
        },
        "datamodule_hyper_parameters": {"_class_path": "data.Own", "image_size": 8},
        "Own": {"epoch": 2, "batch": batch},
        "global_step": 9,
        "run": {"seed": 0, "measured": {}},
    }


@pytest.mark.parametrize(
    ("seed", "checkpoint", "reason"),
    [
        (0, trained(batch=3), ""),
        (1, trained(batch=0), ""),
        (1, trained(batch=3), "x.ckpt was saved within an epoch: it can be resumed with seed 0 only"),
        (0, trained(lr=0.2), ""),
        (0, trained(scheduled=True), ""),
        (0, trained(lr=0.2, scheduled=True), r"began with model.optimizer.lr 0.2: it cannot be resumed with 0.1"),
    ],
)
def test_what_a_run_goes_on_with(seed: int, checkpoint: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) if reason else nullcontext():
        check_resumable(checkpoint, asked(checkpoint, seed=seed), longer=False)


def asked(checkpoint: dict[str, Any], seed: int = 0, factors: dict[str, float] | None = None) -> Namespace:
    """The config of a run that is to go on; a setting that the checkpoint does not know is that of a later version."""
    adam = Namespace(class_path="torch.optim.Adam", init_args=Namespace(lr=0.1, betas=[0.9, 0.999], later=True))
    steps = Namespace(class_path="StepLR", init_args=Namespace(step_size=1))
    scheduler = steps if checkpoint["hyper_parameters"]["scheduler"] else None
    model = Namespace(optimizer=adam, scheduler=scheduler, lr_factors=factors)
    return Namespace(ckpt_path="x.ckpt", seed_everything=seed, model=model)


@pytest.mark.parametrize(
    ("factors", "scheduled", "possible"),
    [
        ({"net.head": 0.1, "net.body": 0.5}, False, True),
        ({"net.head": 0.1, "net.body": 0.5}, True, False),
        ({"net.head": 0.5, "net.body": 0.5}, False, False),
        ({"net.head": 0.5, "net.body": 1}, False, False),
        ({"net.head": 0.5, "net.stem": 0.2}, False, False),
        (None, False, False),
    ],
)
def test_factors_may_be_others_where_no_schedule_has_begun_with_them_and_groups_stay_the_same(
    factors: dict[str, float] | None, scheduled: bool, possible: bool
) -> None:
    """What an optimizer keeps of the weights is restored group by group, whatever is in them."""
    checkpoint = trained(scheduled=scheduled, factors={"net.body": 0.2, "net.head": 0.5})
    reason = r"^x\.ckpt was trained with model\.lr_factors {'net\.body': 0\.2, 'net\.head': 0\.5}: it cannot be resumed"
    with nullcontext() if possible else pytest.raises(InputError, match=reason):
        check_resumable(checkpoint, asked(checkpoint, factors=factors), longer=False)


@pytest.mark.parametrize(
    ("command", "asked", "labels", "chosen"),
    [
        ("predict", ["data.root"], "run.csv", {"classes": ["a", "b"], "labels": None}),
        ("predict", ["data.root"], "other.csv", {"classes": ["a", "b"], "labels": "other.csv"}),  # of a config
        ("predict", ["data.root", "data.labels"], "run.csv", {"classes": ["a", "b"], "labels": "run.csv"}),
        ("predict", [], "run.csv", {"classes": ["a", "b"], "labels": "run.csv"}),
        ("test", ["data.root"], "run.csv", {"classes": None, "labels": "run.csv"}),
    ],
)
def test_which_photos_a_command_has(command: str, asked: list[str], labels: str, chosen: dict[str, object]) -> None:
    checkpoint = trained()
    checkpoint["datamodule_hyper_parameters"]["labels"] = "run.csv"
    data = Namespace(classes=None, labels=labels)
    choose_photos(checkpoint, data, command, asked)
    assert data.as_dict() == chosen


@pytest.mark.parametrize(
    ("classes", "size", "rule", "reason"),
    [
        (["a", "b"], 8, {"image_size": 8}, ""),
        (["a", "b"], 9, {}, ""),
        (["a", "b"], 9, {"image_size": 8}, "the net was trained with data.image_size 8, and the data has 9"),
        (["b", "a"], 8, {"image_size": 8}, "the net knows the classes a, b; the data has b, a"),
    ],
)
def test_which_data_goes_with_a_net(classes: list[str], size: int, rule: dict[str, Any], reason: str) -> None:
    data = SimpleNamespace(classes=classes, image_size=size, resize_mode="crop")
    with pytest.raises(InputError, match=reason) if reason else nullcontext():
        check_match("the net", ["a", "b"], rule, data)  # type: ignore[arg-type]
