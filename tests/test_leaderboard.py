"""The table of runs, from folders as `fit` leaves them."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console
from scipy.stats import binomtest

from cifar_lightning import runs
from cifar_lightning.leaderboard import table
from cifar_lightning.leaderboard.board import Board, ranked
from cifar_lightning.leaderboard.differences import Differences, flat
from cifar_lightning.leaderboard.entry import Entry, find, read, wilson
from cifar_lightning.nets import CNN
from tests.conftest import BRIEF, Run, Start, make_photos

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 3, "enable_progress_bar": False, "logger": None},
    "model": {
        "net": {"class_path": "cifar_lightning.nets.CNN", "init_args": {"dropout": 0.2, "hidden": 128}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}},
        "scheduler": None,
    },
    "data": {"class_path": "cifar_lightning.data.Digits", "init_args": {"augment": None, "split_seed": 0}},
    "checkpoint": {"monitor": "val/accuracy", "mode": "max"},
    "ckpt_path": None,
}
FACTS = {"finished": True, "seed": 0, "parameters": 356810, "validation_images": 180, "seconds": 75.4}

Make = Callable[..., Path]


def changed(**settings: object) -> dict[str, Any]:
    """CONFIG with other values for dotted keys, whose dots are written as double underscores."""
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for key, value in settings.items():
        node, *names = config, *key.split("__")
        for name in names[:-1]:
            node = node[name]
        node[names[-1]] = value
    return config


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a run's folder as `fit` leaves it, below `runs`."""

    def write(
        name: str = "cnn/version_0",
        accuracies: tuple[float, ...] = (0.5, 0.9, 0.8),
        config: dict[str, Any] = CONFIG,
        tested: float | None = None,
        **facts: object,
    ) -> Path:
        folder = tmp_path / "runs" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({**FACTS, **facts}))
        (folder / "config.yaml").write_text("# python -m cifar_lightning fit\n" + yaml.safe_dump(config))
        lines = ["epoch,step,train/loss,val/accuracy,val/loss"]
        for epoch, accuracy in enumerate(accuracies):
            lines += [f"{epoch},{4 * epoch + 3},,{accuracy},{1 - accuracy}", f"{epoch},{4 * epoch + 3},0.7,,"]
        (folder / "metrics.csv").write_text("\r\n".join([*lines, ""]))
        noted = hashlib.sha256(name.encode()).hexdigest()
        (folder / "checkpoints" / "best.ckpt").write_bytes(b"0" * 1_499_928 + b"sha256:%s\n" % noted.encode())
        if tested is not None:
            (folder / "report").mkdir()
            metrics = {"accuracy": {"value": tested, "low": tested - 0.02, "high": tested + 0.01}}
            judged = {"digest": noted}
            (folder / "report" / "metrics.json").write_text(json.dumps({"model": judged, "metrics": metrics}))
        return folder

    return write


def entry(folder: Path) -> Entry:
    return read(folder.absolute(), Path("runs").absolute())


class TestEntry:
    def test_what_the_files_say(self, make: Make) -> None:
        folder = make(tested=0.85)
        (folder / "model.onnx").write_bytes(b"0" * 20_000)
        known = entry(folder)
        assert (known.run, known.state, known.epochs, known.seed) == ("cnn/version_0", "finished", 3, 0)
        assert (known.val_accuracy, known.val_loss) == (0.9, pytest.approx(0.1))
        assert (known.val_accuracy_low, known.val_accuracy_high) == wilson(0.9, 180)
        assert (known.test_accuracy, known.test_accuracy_low, known.test_accuracy_high) == (0.85, 0.83, 0.86)
        assert (known.seconds, known.parameters, known.checkpoint_mb, known.onnx_mb) == (75.4, 356810, 1.5, 0.02)
        assert known.curve == [0.5, 0.9, 0.8]
        assert known.damaged == []

    def test_test_accuracy_is_that_of_the_checkpoint_beside_it(self, make: Make) -> None:
        """`test` may have judged last.ckpt, or best.ckpt before the run went on."""
        folder = make(tested=0.85)
        (folder / runs.BEST).rename(folder / runs.LAST)
        assert (entry(folder).test_accuracy, entry(folder).checkpoint_mb) == (0.85, 1.5)
        (folder / runs.BEST).write_bytes(b"better")
        assert (entry(folder).test_accuracy, entry(folder).test_accuracy_low) == (None, None)
        assert entry(folder).damaged == []

    @pytest.mark.parametrize(("hits", "count"), [(0, 10), (9, 10), (10, 10), (155, 180), (4321, 5000)])
    def test_the_interval_is_wilsons(self, hits: int, count: int) -> None:
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        assert wilson(hits / count, count) == pytest.approx(tuple(expected), abs=1e-6)

    def test_the_figures_are_those_of_the_epoch_that_is_kept(self, make: Make) -> None:
        """Chosen by the loss, the first epoch is the best although the second is more accurate."""
        folder = make(config=changed(checkpoint={"monitor": "val/loss", "mode": "min"}))
        text = (folder / "metrics.csv").read_text().replace("0.5,0.5", "0.5,0.01")
        (folder / "metrics.csv").write_text(text)
        assert (entry(folder).val_accuracy, entry(folder).val_loss) == (0.5, 0.01)

    def test_where_nothing_is_monitored_it_is_the_last(self, make: Make) -> None:
        folder = make(config=changed(checkpoint={"monitor": None, "mode": "max"}))
        assert (entry(folder).val_accuracy, entry(folder).best) == (0.8, 2)
        metrics = folder / "metrics.csv"
        metrics.write_text(metrics.read_text() + "2,13,,0.1,9\n")  # a second validation of that epoch
        assert (entry(folder).val_accuracy, entry(folder).best) == (0.1, 3)

    def test_only_epochs_that_may_be_kept_count(self, make: Make) -> None:
        kept = {"monitor": "val/accuracy", "mode": "max", "every_n_epochs": 2}
        known = entry(make(accuracies=(0.9, 0.5, 0.8, 0.6), config=changed(checkpoint=kept)))
        assert (known.val_accuracy, known.best) == (0.6, 3)

    @pytest.mark.parametrize(("several", "best"), [({}, 2), ({"save_top_k": 1}, 2), ({"save_top_k": 3}, 0)])
    def test_of_equally_accurate_epochs_the_dot_is_on_the_one_of_the_least_loss_where_one_is_kept(
        self, make: Make, several: dict[str, int], best: int
    ) -> None:
        kept = {"monitor": "val/accuracy", "mode": "max", **several}
        folder = make(accuracies=(0.9, 0.5, 0.9), config=changed(checkpoint=kept))
        metrics = folder / "metrics.csv"
        metrics.write_text(metrics.read_text().replace("2,11,,0.9,", "2,11,,0.9,-"))
        assert entry(folder).best == best

    def test_names_are_those_that_people_see_also_through_links(self, make: Make) -> None:
        make("old/version_0")
        (runs_ := Path("runs")).rename("big")
        runs_.mkdir()
        Path("runs/new").symlink_to(Path("big/old").resolve())
        (folder,) = find(runs_)
        assert read(folder, runs_).run == "new/version_0"
        (folder,) = find(runs_ / "new/version_0")
        assert read(folder, folder).run == "new/version_0"

    def test_an_older_run_without_the_facts_has_empty_cells(self, make: Make) -> None:
        folder = make()
        (folder / "run.json").write_text('{"finished": true}')
        known = entry(folder)
        assert known.val_accuracy == 0.9
        empty = (known.val_accuracy_low, known.seconds, known.parameters, known.test_accuracy, known.onnx_mb)
        assert empty == (None,) * 5
        assert known.seed == 0  # of its config
        assert known.damaged == []

    def test_a_run_is_running_while_its_lock_is_held(self, make: Make) -> None:
        folder = make(finished=False)
        assert entry(folder).state == "unfinished"
        held = runs.Run(folder)
        assert entry(folder).state == "running"
        with pytest.MonkeyPatch.context() as patch:  # somebody else's, which cannot be opened
            patch.setattr(os, "access", lambda *_: False)
            assert entry(folder).state == "unfinished"
        held.release()
        assert entry(folder).state == "unfinished"
        assert not (folder / ".lock").exists()

    @pytest.mark.parametrize("name", ["run.json", "config.yaml", "metrics.csv", "report/metrics.json"])
    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[1]\n", b"\xff\xfe\0", b'{"metrics": [1, ', b"1" * 200_000 + b"\n"]
    )
    def test_a_damaged_file_is_named_and_leaves_cells_empty(
        self, run: Run, make: Make, name: str, content: bytes
    ) -> None:
        make()
        folder = make("cnn/version_1", tested=0.8)
        (folder / name).write_bytes(content)
        result = run("runs")
        assert result.code == 0
        table_without_rows = (name, content) == ("metrics.csv", b"[1]\n")
        assert f"{folder.relative_to(Path.cwd()) / name} cannot be read" in result.err or table_without_rows
        assert len(result.err.splitlines()) <= 1
        assert "cnn/version_1" in result.out

    @pytest.mark.parametrize("name", ["run.json", "report/metrics.json"])
    def test_a_file_that_is_nested_too_deeply_is_damaged(self, make: Make, name: str) -> None:
        folder = make(tested=0.8)
        (folder / name).write_text("[" * 100_000)
        assert entry(folder).damaged == [folder / name]

    def test_a_config_that_holds_itself_is_damaged(self, make: Make) -> None:
        folder = make()
        (folder / "config.yaml").write_text("a: &x [*x]\n")
        assert (entry(folder).damaged, entry(folder).val_accuracy) == ([folder / "config.yaml"], 0.9)

    def test_a_number_that_is_none_of_anything_is_not_known(self, make: Make) -> None:
        huge = 10**400
        folder = make(config=changed(checkpoint__every_n_epochs=huge), seconds=huge, validation_images=huge)
        known = entry(folder)
        assert (known.seconds, known.val_accuracy, known.val_accuracy_low) == (None, 0.9, None)
        assert entry(make("cnn/version_1", validation_images=-5)).val_accuracy_low is None

    def test_every_file_cut_anywhere_gives_a_row(self, make: Make) -> None:
        folder = make(tested=0.8)
        for name in ("run.json", "config.yaml", "metrics.csv", "report/metrics.json"):
            whole = (folder / name).read_bytes()
            for length in range(0, len(whole), 7):
                (folder / name).write_bytes(whole[:length])
                assert entry(folder).run == "cnn/version_0"
            (folder / name).write_bytes(whole)
        assert entry(folder).damaged == []

    def test_values_of_wrong_kinds_are_not_known(self, make: Make) -> None:
        folder = make(seconds="long", parameters=[1], validation_images=True, seed=None)
        (folder / "config.yaml").write_text("checkpoint: [1]\nmodel: {net: {class_path: 3, init_args: x}}\n1: 2\n")
        (folder / "metrics.csv").write_text("epoch,step,val/accuracy\n0,1,0.5\n1,2,nan\n2,3,x\n3,4,7,8\n4,5\n5,6,0.6")
        known = entry(folder)
        assert (known.seconds, known.parameters, known.val_accuracy_low, known.seed) == (None,) * 4
        assert (known.val_accuracy, known.curve) == (0.5, [0.5])  # the last line may be cut
        assert known.damaged == [folder / "metrics.csv"]

    def test_rows_before_the_first_half_line_count(self, make: Make) -> None:
        folder = make()
        text = (folder / "metrics.csv").read_text()
        (folder / "metrics.csv").write_text(text[: text.index("2,11")] + "2,1")
        assert (entry(folder).epochs, entry(folder).curve) == (2, [0.5, 0.9])


class TestFind:
    @pytest.mark.parametrize(
        ("place", "names"),
        [
            ("runs", {"a/version_0", "a/version_1", "sweep/trial_1/version_0"}),
            ("runs/a", {"a/version_0", "a/version_1"}),
            ("runs/a/version_1", {"a/version_1"}),
            ("runs/sweep", {"trial_1/version_0"}),
            (".", {"runs/a/version_0", "runs/a/version_1", "runs/sweep/trial_1/version_0"}),
        ],
    )
    def test_runs_below_a_folder_of_any_kind(self, make: Make, place: str, names: set[str]) -> None:
        for name in ("a/version_0", "a/version_1", "sweep/trial_1/version_0"):
            make(name)
        Path("runs/a/version_2").mkdir()
        Path("runs/tensorboard/version_0").mkdir(parents=True)
        assert {read(folder, Path(place)).run for folder in find(Path(place))} == names

    def test_hidden_folders_and_deep_ones_are_not_searched(self, make: Make) -> None:
        for name in ("a/version_0", ".cache/version_0", "a/b/c/d/version_0"):
            make(name)
        assert list(find(Path("runs"))) == [Path("runs/a/version_0")]

    @pytest.mark.parametrize("closed", ["b/version_0", "b/version_0/checkpoints"])
    def test_what_may_not_be_looked_into_hides_no_other_run(
        self, run: Run, make: Make, monkeypatch: pytest.MonkeyPatch, closed: str
    ) -> None:
        make("a/version_0")
        make("b/version_0")
        stat = os.stat

        def refused(path: Any, **settings: Any) -> os.stat_result:
            if f"{closed}/" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return stat(path, **settings)

        monkeypatch.setattr(os, "stat", refused)
        result = run("runs", "--csv")
        assert (result.code, result.err) == (0, "")
        assert len(result.out.splitlines()) == (2 if closed == "b/version_0" else 3)

    @pytest.mark.parametrize("words", [(), ("nowhere",), ("empty",)])
    def test_nothing_to_show_is_one_sentence(self, run: Run, words: tuple[str, ...]) -> None:
        Path("empty").mkdir()
        result = run("runs", *words)
        assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
        assert result.err.startswith(f"error: {words[0] if words else 'runs'} ")


class TestDifferences:
    def test_a_run_shows_what_most_others_have_not(self) -> None:
        configs = [CONFIG, CONFIG, CONFIG, changed(model__net__init_args__dropout=0.5), changed(trainer__max_epochs=9)]
        found = Differences([flat(each) for each in configs])
        assert [found.own(each) for each in found.settings] == ["", "", "", "dropout=0.5", "max_epochs=9"]
        assert found.otherwise() == "max_epochs=3 dropout=0.2"

    def test_where_no_value_is_that_of_most_everybody_shows_it(self) -> None:
        found = Differences([flat(changed(model__optimizer__init_args__lr=rate)) for rate in (0.1, 0.1, 0.2, 0.3)])
        assert [found.own(each) for each in found.settings] == ["lr=0.1", "lr=0.1", "lr=0.2", "lr=0.3"]
        assert found.otherwise() == ""

    def test_another_class_differs_by_its_name_and_not_by_settings_that_only_it_has(self) -> None:
        net = {"class_path": "cifar_lightning.nets.SpeedNet", "init_args": {"views": 2, "hidden": 64}}
        own = {"class_path": "mynet.CNN", "init_args": None}
        found = Differences([flat(each) for each in (CONFIG, CONFIG, changed(model__net=net), changed(model__net=own))])
        shown = [found.own(each) for each in found.settings]
        assert shown == ["net=CNN", "net=CNN", "net=SpeedNet hidden=64", "net=mynet.CNN"]

    def test_names_are_as_short_as_they_can_be_told_apart(self) -> None:
        schedule = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"lr": 1}}
        found = Differences(
            [flat(changed(model__scheduler=schedule, model__optimizer__init_args__lr=r)) for r in (1, 2)]
        )
        assert found.own(found.settings[1]) == "optimizer.lr=2"
        found = Differences([flat(CONFIG), flat(changed(model__scheduler=schedule))])
        assert [found.own(each) for each in found.settings] == ["scheduler=null", "scheduler=OneCycleLR"]

    def test_lists_of_classes_are_one_value(self) -> None:
        crop = {"class_path": "cifar_lightning.augment.ShiftedCrop", "init_args": {"pixels": 2}}
        mirror = {"class_path": "cifar_lightning.augment.Mirror"}
        found = Differences([flat(changed(data__init_args__augment=each)) for each in (None, [mirror, crop])])
        assert found.own(found.settings[1]) == "augment=[Mirror,ShiftedCrop(pixels=2)]"

    def test_what_says_nothing_about_the_experiment_is_left_out(self) -> None:
        other = changed(trainer__enable_progress_bar=True, trainer__logger=[1], ckpt_path="x", seed_everything=7)
        assert Differences([flat(CONFIG), flat(other)]).keys == {}
        streamed = [changed(data__init_args__memory=memory) for memory in ("auto", 0.0)]
        assert Differences([*map(flat, streamed)]).keys == {}

    @pytest.mark.parametrize(
        ("key", "limit", "deciding"),
        [
            ("limit_val_batches", None, ""),
            ("limit_val_batches", 1.0, ""),
            ("limit_val_batches", 5, "with trainer.limit_val_batches"),
            ("overfit_batches", 0.0, ""),
            ("overfit_batches", 2, "with trainer.overfit_batches"),
        ],
    )
    def test_the_size_of_batches_decides_what_is_validated_on_where_only_some_are(
        self, key: str, limit: float | None, deciding: str
    ) -> None:
        configs = [changed(data__init_args__batch_size=size, **{f"trainer__{key}": limit}) for size in (16, 64)]
        assert Differences([*map(flat, configs)]).images() == (deciding and f"batch_size {deciding}")

    def test_what_a_run_is_to_overfit_decides_what_is_validated_on(self) -> None:
        configs = [changed(trainer__overfit_batches=number) for number in (0.0, 2)]
        assert Differences([*map(flat, configs)]).images() == "overfit_batches"


def board(*entries: Entry) -> Board:
    return Board(ranked(entries, "val_accuracy"))


class TestTable:
    def test_the_best_by_validation_comes_first_whatever_the_test_says(self, run: Run, make: Make) -> None:
        make("a/version_0", (0.7,), tested=0.9)
        make("a/version_10", (0.7,))
        make("a/version_9", (0.7,))
        make("b/version_0", ())
        make("b/version_1", (0.8,), changed(trainer__max_epochs=9), tested=0.7)
        result = run("runs")
        assert (result.code, result.err) == (0, "")
        head, *rows = result.out.split("\n\n")[0].splitlines()
        assert head.split("  ")[0] == ""
        assert [row[3:].split()[0] for row in rows] == [
            "b/version_1",
            "a/version_0",
            "a/version_9",
            "a/version_10",
            "b/version_0",
        ]
        assert [row[0] for row in rows] == ["*", " ", " ", " ", " "]
        assert rows[0].split("  ")[-1] == "max_epochs=9"
        assert "80.0% (73.6 to 85.2)" in rows[0]
        assert "70.0% (68.0 to 71.0)" in rows[0]
        assert "1 min 15 s" in rows[0]
        assert "356,810" in rows[0]
        assert "1.50 MB" in rows[0]
        assert "best validation accuracy: b/version_1, 80.0% (73.6 to 85.2)\n" in result.out
        assert "unless stated otherwise: max_epochs=3" in result.out

    def test_rivals_within_the_interval_are_counted(self, make: Make) -> None:
        found = board(*(entry(make(f"a/version_{i}", (0.8 - 0.04 * i,))) for i in range(3)))
        assert found.findings[0].endswith("(73.6 to 85.2); 1 more within its interval, so it may be chance")

    @pytest.mark.parametrize("key", ["split_seed", "val_fraction", "test_fraction", "root", "labels"])
    def test_runs_validated_on_different_images_are_not_compared_in_silence(
        self, run: Run, make: Make, key: str
    ) -> None:
        for version in (0, 1):
            make(f"a/version_{version}", config=changed(**{f"data__init_args__{key}": version}))
        assert f"not all were validated on the same images ({key})" in run("runs").out

    def test_nor_are_runs_of_one_config_whose_photos_have_changed(self, make: Make) -> None:
        """Earlier runs do not say which they were, and one that was never validated is in nobody's way."""
        same = [entry(make(f"a/version_{i}", validation="a")) for i in range(2)]
        same += [entry(make("b/version_0", validation=7)), entry(make("b/version_1", (), validation="c"))]
        assert not any("not comparable" in each for each in board(*same).findings)
        sentence = "not comparable as they are: not all were validated on the same images "
        other = entry(make("c/version_0", validation="b"))
        assert sentence + "(photos or labels have changed)" in board(*same, other).findings
        other = entry(make("c/version_1", config=changed(data__init_args__split_seed=1), validation="b"))
        assert sentence + "(split_seed)" in board(*same, other).findings

    @pytest.mark.parametrize(
        ("before", "after", "keys"),
        [
            ({"label_smoothing": 0.0}, {"label_smoothing": 0.1}, "label_smoothing"),
            ({"label_smoothing": 0.1}, {"name": "Focal"}, "loss"),
            ({"label_smoothing": 0.1}, {"name": "Distillation", "label_smoothing": 0.1, "weight": 0.5}, None),
            ({"name": "Distillation", "weight": 0.5}, {"name": "Distillation", "weight": 0.9}, None),
            ({"class_weights": None}, {"class_weights": "inverse"}, None),
        ],
    )
    def test_runs_with_different_losses_are_not_compared_by_val_loss(
        self, run: Run, make: Make, before: dict[str, object], after: dict[str, object], keys: str | None
    ) -> None:
        for version, given in enumerate((before, after)):
            settings = {"name": "CrossEntropy", **given}
            loss = {"class_path": f"cifar_lightning.loss.{settings.pop('name')}", "init_args": settings}
            make(f"a/version_{version}", config=changed(model__loss=loss))
        out = run("runs").out
        assert f"by val loss: not all use the same loss ({keys})\n" in out if keys else "by val loss" not in out

    def test_columns_that_say_nothing_are_left_out(self, run: Run, make: Make) -> None:
        make(finished=False)
        head, row = run("runs").out.splitlines()[:2]
        assert "test accuracy" not in head
        assert "model.onnx" not in head
        assert "differs in" not in head
        assert "unfinished" in row

    @pytest.mark.parametrize("width", [60, 80, 110, 160])
    def test_it_fits_the_terminal(self, make: Make, width: int) -> None:
        crops = [{"class_path": "cifar_lightning.augment.ShiftedCrop", "init_args": {"pixels": n}} for n in range(3)]
        entries = [entry(make("a/version_0", tested=0.8)), entry(make("a/version_1", finished=False))]
        config = changed(data__init_args__augment=crops, trainer__max_epochs=9, model__net__init_args__dropout=0.7)
        entries.append(entry(make("a/version_2", (0.95,), config)))
        text = table.text(board(*entries), Console(width=width, force_terminal=True, color_system=None))
        assert max(map(len, text.splitlines())) <= width
        assert ("no room for" in text) == (width < 160)
        for word in ("a/version_0", "a/version_1", "a/version_2", "95.0% (90.8 to 97.3)", "dropout=0.7"):
            assert word in text

    def test_brackets_and_odd_names_are_shown_as_they_are(self, run: Run, make: Make) -> None:
        make("a/version_0")
        make("a/version_1", config=changed(data__init_args__augment=["[red]x", "a b\n", "\x1b[1m"]))
        out = run("runs").out
        assert r'augment=[[red]x,"a b\n","\u001b[1m"]' in out
        (Path("runs") / os.fsdecode(b"\xff")).mkdir()
        Path("runs/a/version_0").rename(Path("runs") / os.fsdecode(b"\xff/version_0"))
        script = [sys.executable, "-m", "cifar_lightning", "runs"]
        assert b"\\udcff/version_0" in subprocess.run(script, capture_output=True, check=True).stdout

    def test_a_pipe_gets_utf_8_where_the_locale_is_another(self, make: Make) -> None:
        make("猫/version_0")
        locale = "sys.stdout.reconfigure(encoding='cp1252'); sys.stderr.reconfigure(encoding='cp1252')"
        code = f"import sys; {locale}; from cifar_lightning.__main__ import main; sys.exit(main())"
        script = [sys.executable, "-c", code, "runs"]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
        assert "猫/version_0" in subprocess.run(script, capture_output=True, check=True, env=env).stdout.decode()
        refused = subprocess.run([*script, "犬"], capture_output=True, env=env)
        assert "犬" in refused.stderr.decode()

    def test_a_pipe_gets_the_encoding_that_is_asked_for(self) -> None:
        script = [sys.executable, "-m", "cifar_lightning", "runs", "é犬"]
        refused = subprocess.run(script, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"})
        assert r"é\u72ac" in refused.stderr.decode("cp1252")

    def test_csv_has_every_figure_and_a_column_for_each_key_that_differs(self, run: Run, make: Make) -> None:
        make("a/version_0", (0.25, 0.75), tested=0.5)
        make("a/version_1", (0.5,), changed(model__optimizer__init_args__lr=0.1), seconds=None)
        first, second = csv.DictReader(io.StringIO(run("runs", "--csv").out))
        assert (first["run"], first["state"], first["epochs"]) == ("a/version_0", "finished", "2")
        assert float(first["val_accuracy"]) == 0.75
        assert (float(first["test_accuracy_low"]), float(first["seconds"])) == (0.48, 75.4)
        assert (second["seconds"], second["test_accuracy"]) == ("", "")
        assert (first["model.optimizer.lr"], second["model.optimizer.lr"]) == ("0.001", "0.1")

    @pytest.mark.parametrize(
        ("key", "order"), [("val_loss", "210"), ("seconds", "012"), ("test_accuracy", "102"), ("run", "012")]
    )
    def test_other_orders_put_the_better_first_and_the_unknown_last(
        self, run: Run, make: Make, key: str, order: str
    ) -> None:
        for number, (accuracy, tested) in enumerate([(0.5, 0.8), (0.6, 0.9), (0.7, None)]):
            make(f"a/version_{number}", (accuracy,), tested=tested, seconds=number + 1)
        rows = list(csv.DictReader(io.StringIO(run("runs", "--csv", "--sort", key).out)))
        assert "".join(row["run"][-1] for row in rows) == order

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("--sort", "val_acuracy"), "there is no column 'val_acuracy': did you mean 'val_accuracy'?"),
            (("--sor", "run"), "unrecognized arguments"),
            (("--csv", "--html", "x"), "not allowed with argument"),
            (("--html", "x.ckpt"), "x.ckpt ends in .ckpt, like a checkpoint"),
        ],
    )
    def test_what_is_mistyped_is_named(self, run: Run, make: Make, words: tuple[str, ...], sentence: str) -> None:
        make()
        result = run("runs", *words)
        assert result.code == 2
        assert sentence in result.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_where_the_table_cannot_be_written_one_sentence_says_so(make: Make) -> None:
    make()
    script = [sys.executable, "-m", "cifar_lightning", "runs"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(script, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert result.stderr.startswith("error: the table cannot be written: ")
    reader, writer = os.pipe()
    os.close(reader)  # who has seen enough
    result = subprocess.run(script, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


class Page(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_marks_the_best_and_draws_every_run(run: Run, make: Make) -> None:
    make("a/version_0", (0.2, 0.6))
    make("a/version_1", (0.4, 1.0, 0.8), changed(data__init_args__augment=["<script>alert(1)</script>"]))
    make("a/version_2", ())
    result = run("runs", "--html", "runs.html")
    assert (result.code, result.out) == (0, "wrote runs.html\n")
    assert run("runs", "--html", ".").out == "wrote runs.html\n"
    assert run("runs", "--html", "runs").out == "wrote runs/runs.html\n"
    text = Path("runs.html").read_text()
    page = Page()
    page.feed(text)
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not any({"src", "href"} & attributes.keys() for _, attributes in page.tags)
    best = text[text.index('<tr class="best">') :]
    assert best.index("a/version_1") < best.index("</tr>")
    curves = [attributes["points"] for tag, attributes in page.tags if tag == "polyline"]
    assert [len((points or "").split()) for points in curves] == [3, 2]
    heights = [float(point.split(",")[1]) for points in curves for point in (points or "").split()]
    assert heights.index(min(heights)) == 1  # the highest accuracy, 1.0
    assert heights.index(max(heights)) == 3  # the lowest, 0.2
    for drawing in text.split("<svg")[1:]:
        ET.fromstring(f"<svg{drawing[: drawing.index('</svg>')]}</svg>")


class TestFit:
    def test_a_run_appears_with_its_cost_and_interval_and_time_adds_up(self, run: Run) -> None:
        assert run("fit", *BRIEF).code == 0
        folder = Path("runs/cnn/version_0")
        first = entry(folder)
        assert (first.state, first.epochs, first.damaged) == ("finished", 1, [])
        assert first.parameters == sum(each.numel() for each in CNN(10).parameters())
        facts = json.loads((folder / "run.json").read_text())
        assert facts["validation_images"] == 179  # a tenth of nine tenths of the digits
        assert first.val_accuracy is not None
        assert first.val_accuracy * 179 == pytest.approx(round(first.val_accuracy * 179), abs=1e-4)
        assert (first.val_accuracy_low, first.val_accuracy_high) == wilson(first.val_accuracy, 179)
        assert first.seconds
        (folder / "run.json").write_text(json.dumps({**facts, "finished": False, "seconds": 1000.0}))
        assert run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 2).code == 0
        again = entry(folder)
        assert again.epochs == 2
        assert again.seconds
        assert 1000 < again.seconds < 1900  # and not counted twice
        assert f"{round(again.seconds) // 60} min " in run("runs").out

    def test_another_photo_to_validate_on_is_noticed_and_another_size_of_them_is_not(
        self, run: Run, tmp_path: Path
    ) -> None:
        make_photos(tmp_path / "photos", 4)
        words = ("fit", "--data", "ImageFolder", "--data.root", "photos", *BRIEF[2:])
        for size in (16, 32):
            assert run(*words, "--data.image_size", size).code == 0
        assert "not comparable" not in run("runs").out
        for path in tmp_path.glob("photos/red/*"):
            Image.new("RGB", (20, 20), (200, 40 * int(path.stem), 0)).save(path)
        assert run(*words, "--data.image_size", 32).code == 0
        assert "the same images (photos or labels have changed)" in run("runs").out

    def test_only_images_that_were_validated_on_count(self, run: Run) -> None:
        assert run("fit", *BRIEF, "--trainer.limit_val_batches", 2).code == 0
        assert runs.facts(Path("runs/cnn/version_0"))["validation_images"] == 32

    @pytest.mark.slow
    def test_a_killed_run_shows_the_time_of_its_last_checkpoint(self, start: Start, tmp_path: Path) -> None:
        child = start("fit", "--data", "Digits", "--trainer.max_epochs", 1000, "--trainer.limit_train_batches", 4)
        folder = tmp_path / "runs/cnn/version_0"
        assert child.wait_for(lambda: runs.facts(folder).get("seconds") and (folder / "checkpoints/last.ckpt").exists())
        assert entry(folder).state == "running"
        child.process.kill()
        child.wait()
        known = entry(folder)
        assert known.state == "unfinished"
        assert known.seconds
        assert known.parameters


def test_it_needs_neither_torch_nor_lightning(make: Make) -> None:
    make()
    make("a/version_0")
    heavy = {"torch", "lightning", "sklearn", "scipy", "matplotlib"}
    for form in ([], ["--csv"], ["--html", "x.html"]):
        code = (
            "import sys; from cifar_lightning.__main__ import main; "
            f"assert main(['runs', *{form}]) == 0; print('LOADED', *sorted({heavy} & set(sys.modules)))"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert out.splitlines()[-1] == "LOADED"
