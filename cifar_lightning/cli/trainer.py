"""Lightning's Trainer with a report from `test`, a file from `predict`, and the commands `export` and `verify`."""

import csv
from functools import partial
from pathlib import Path

import lightning.pytorch as L
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning import runs
from cifar_lightning.data import ImageData, ImageFolder
from cifar_lightning.data.images import Part
from cifar_lightning.export import export, verify
from cifar_lightning.files import check_writable, file_digest, target
from cifar_lightning.module import Classifier
from cifar_onnx import InputError, shell
from cifar_onnx.contract import Precision
from cifar_onnx.explain import occlusion
from cifar_onnx.uncertainty import Method

_CHANGED = "they, or how they are split, have changed since"


def _seen(datamodule: ImageData, ckpt_path: str, part: Part) -> bool:
    """Whether the run of a checkpoint may have learnt from some of the pictures of a part."""
    if part in datamodule.given or (part == "test" and datamodule.elsewhere):
        return False
    return runs.learnt_others(ckpt_path, datamodule.images("train").digest)


def _validated_others(datamodule: ImageData, ckpt_path: str) -> bool:
    """Whether the run of a checkpoint is known to have been validated on other images than there are now."""
    noted = runs.facts(runs.folder_of(ckpt_path)).get("validation", "various")
    return noted not in ("various", datamodule.images("val").digest)


def _only_moved(datamodule: ImageData, ckpt_path: str) -> bool:
    """Whether photos at another place, of which some are held out for the test, are those of the run."""
    if not isinstance(datamodule, ImageFolder) or not datamodule.elsewhere or "test" in datamodule.given:
        return False
    return bool(runs.facts(runs.folder_of(ckpt_path)).get("images") == datamodule.images("train").digest)


def _apart(datamodule: ImageData) -> str:
    """What the name of a file of other pictures than the run's ends in, so that the run's own stays."""
    if not datamodule.elsewhere:
        return ""
    return f"-{datamodule.title if isinstance(datamodule, ImageFolder) else type(datamodule).__name__}"


class Trainer(L.Trainer):
    """Lightning's Trainer with a report from `test`, a CSV file from `predict`, and with `export` and `verify`."""

    def check_launcher(self, command: str) -> None:
        """Refuse strategies whose processes end with what they know.

        Raises:
            InputError: this is one.
        """
        if isinstance(self.strategy.launcher, _MultiProcessingLauncher):
            raise InputError(
                f"{command} takes no strategy that spawns or forks: leave --trainer.strategy out, or give ddp"
            )

    def test(  # type: ignore[override]
        self,
        model: Classifier,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        output: str | None = None,
        groups: str | None = None,
        corruptions: bool = False,
        attacks: list[float] | None = None,
        resamples: int = 1000,
    ) -> None:
        """Judge a checkpoint by the test set: metrics with intervals, tables and a report.

        Args:
            ckpt_path: the checkpoint.
            output: folder for the files; by default report in the run's folder, or report-NAME for other photos, and
                report-part where not all pictures are judged, report-seen where the run may have learnt from some, or
                report-resized where they become square otherwise than those that it has learnt from.
            groups: CSV file with groups of the pictures: the column path, and another for each kind of group.
            corruptions: also with noise, blur, fog and the like, of 10,000 images at most, evenly spread.
            attacks: also under adversarial attacks (FGSM, PGD) of these L-inf radii, in grey levels.
            resamples: of the bootstrap.
        """
        # These take seconds to import, and no other command needs them.
        from cifar_lightning.evaluation import evaluate
        from cifar_onnx.evaluation import tables
        from cifar_onnx.evaluation.commands import publish
        from cifar_onnx.evaluation.slices import Groups

        assert ckpt_path is not None
        self.check_launcher("test")
        if resamples < 1:
            raise InputError(f"resamples is {resamples}: it must be at least 1")
        if attacks and min(attacks) < 0:
            raise InputError(f"attacks has a radius of {min(attacks):g} grey levels: it must be at least 0")
        if _only_moved(datamodule, ckpt_path):
            datamodule.elsewhere = False
        folder = Path(output) if output else runs.folder_of(ckpt_path) / f"report{_apart(datamodule)}"
        tables.check_folder(folder)
        listed = Groups(Path(groups)) if groups else None
        if listed:  # a mistake in it shows before the work
            listed.check(datamodule.images("test").names, datamodule.folder("test"))
        super().test(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False)
        if not self.is_global_zero:
            return
        images, seen = datamodule.images("test"), _seen(datamodule, ckpt_path, "test")
        if "test" not in datamodule.given:
            place, uses = datamodule.folder("test") or "the data", "never uses"
            if datamodule.elsewhere:
                uses = "would not use: if none were trained on, python -m cifar_onnx evaluate judges all"
            elif seen:
                uses = f"may have used in part: {_CHANGED}"
            print(f"the test set is {len(images):,} pictures of {place}, which fit {uses}")
        if (count := len(model.tested[0])) < len(images):
            print(f"only {count:,} of {len(images):,} images are evaluated")
        rule = {key: value for key, value in model.input_rule.items() if getattr(datamodule, key) != value}
        for key, value in rule.items():
            print(f"data.{key} is {getattr(datamodule, key)}, and the net was trained with {value}")
        kinds = [("seen", seen), ("part", count < len(images)), ("resized", rule)]
        kind = next((name for name, true in kinds if true), "")
        if kind and not output:  # what others take for the run's report stays
            tables.check_folder(folder := folder.with_name(f"{folder.name}-{kind}"))
        evaluation, run = evaluate(
            self,
            model,
            datamodule,
            ckpt_path,
            groups=listed,
            corruptions=corruptions,
            attacks=attacks or [],
            resamples=resamples,
        )
        publish(evaluation, folder, partial(occlusion, lambda batch: run(batch)[0]))

    def predict(  # type: ignore[override]
        self,
        model: Classifier,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        output: str | None = None,
    ) -> None:
        """Write the predictions of a checkpoint to a CSV file, with the net's own probabilities.

        Those of an exported file are calibrated besides. A file that is no picture has a row with the reason.

        Args:
            ckpt_path: the checkpoint.
            output: the file, or a folder for it; by default predictions.csv in the run's folder, or
                predictions-NAME.csv for other photos.
        """
        assert ckpt_path is not None
        path = target(output, runs.folder_of(ckpt_path) / f"predictions{_apart(datamodule)}.csv")
        check_writable(path.parent, "--output")
        batches = super().predict(model, datamodule=datamodule, ckpt_path=ckpt_path)
        assert batches is not None
        images = datamodule.predicted
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", "label", "probability", "error"])
            for batch in batches:
                for index, probability, label in zip(*(each.tolist() for each in batch), strict=True):
                    writer.writerow([images.names[index], model.classes[label], f"{probability:.6f}", ""])
            writer.writerows([each.name, "", "", each.reason] for each in images.unreadable)
        print(f"wrote {path}")

    def export(
        self,
        model: Classifier,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        output: str | None = None,
        alpha: float = 0.1,
        sets: Method = "lac",
        precision: Precision = "fp32",
        license: str | None = None,  # noqa: A002
        triton: str | None = None,
    ) -> None:
        """Write a checkpoint as one ONNX file, calibrated, and proven on real images to give the same answers.

        Args:
            ckpt_path: the checkpoint.
            output: the file, or a folder for it; by default model.onnx in the run's folder.
            alpha: share of pictures whose right label may be missing from their prediction set.
            sets: how labels get into these sets, by probability (lac) or cumulatively (aps).
            precision: of the net: fp32, fp16 or int8. The smaller ones are written only if they are as good.
            license: for the model card, such as apache-2.0.
            triton: folder for a Triton model repository with the file.
        """
        from cifar_lightning.export.model_card import write_card
        from cifar_lightning.export.triton_server import write_triton

        assert ckpt_path is not None
        checkpoint = checkpoints.load(ckpt_path)
        model.load_state_dict(checkpoint["state_dict"])
        path = target(output, runs.folder_of(ckpt_path) / "model.onnx")
        name = checkpoint["run"]["experiment"]
        runs.check_name(name)
        check_writable(path.parent, "--output")  # before the work
        if triton:
            check_writable(Path(triton), "--triton")
        if _seen(datamodule, ckpt_path, "val"):
            print(f"some of the images that calibrate the file may have been trained on: {_CHANGED}")
        elif _validated_others(datamodule, ckpt_path):
            print("the file is calibrated on other validation images than the run's")
        model.origin = checkpoints.origin(checkpoint)
        exported = export(model, datamodule, path, alpha=alpha, sets=sets, precision=precision)
        tested = runs.folder_of(ckpt_path) / "report" / "metrics.json"
        card = write_card(path := exported.path, name, tested, file_digest(ckpt_path), license)
        print(f"{exported}\nwrote {path} and {card}")
        if triton:
            print(f"wrote {write_triton(path, name, Path(triton))}")
        print("next:", shell.line("python", "-m", "cifar_onnx", "classify", "--model", path, "PHOTO.jpg"))

    def verify(
        self,
        model: Classifier,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        file: str = "model.onnx",
        images: int = 256,
    ) -> None:
        """Compare an exported file with its checkpoint, by torch, on this machine.

        Args:
            ckpt_path: the checkpoint; --against is another name for it.
            file: the exported file; it may stand alone, wherever.
            images: how many pictures to compare on.
        """
        assert ckpt_path is not None
        model.load_state_dict(checkpoints.load(ckpt_path)["state_dict"])
        print(verify(model, datamodule, file, images=images))
        print(f"{file} answers as {ckpt_path} does")
