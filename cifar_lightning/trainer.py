"""Lightning's Trainer with what a command does besides training and judging: predictions to a file, and export."""

import csv
from pathlib import Path

import lightning.pytorch as L

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.data import ImageData
from cifar_lightning.export import Sample, export
from cifar_lightning.module import Classifier


class Trainer(L.Trainer):
    """Lightning's Trainer with a CSV file from `predict`, and with `export`."""

    def predict(  # type: ignore[override]
        self,
        model: Classifier,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        output: str | None = None,
    ) -> None:
        """Write the predictions of a checkpoint to a CSV file.

        Args:
            ckpt_path: the checkpoint.
            output: the file; by default predictions.csv in the run's folder.
        """
        batches = super().predict(model, datamodule=datamodule, ckpt_path=ckpt_path)
        assert ckpt_path is not None
        assert batches is not None
        path = Path(output or checkpoints.run_folder(ckpt_path) / "predictions.csv")
        names = datamodule.predicted.names
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "probability"])
            for indices, probabilities in batches:
                best, labels = (tensor.tolist() for tensor in probabilities.max(1))
                for index, label, probability in zip(indices.tolist(), labels, best, strict=True):
                    writer.writerow([names[index], model.classes[label], f"{probability:.6f}"])
        print(f"wrote {path}")

    def export(
        self, model: Classifier, datamodule: ImageData, ckpt_path: str | None = None, output: str | None = None
    ) -> None:
        """Write a checkpoint as one ONNX file, after proving on real images that it gives the same answers.

        Args:
            ckpt_path: the checkpoint.
            output: the file; by default model.onnx in the run's folder.
        """
        assert ckpt_path is not None
        checkpoint = checkpoints.load(ckpt_path)
        model.load_state_dict(checkpoint["state_dict"])
        path = Path(output or checkpoints.run_folder(ckpt_path) / "model.onnx")
        samples = [Sample(*sample) for sample in datamodule.samples(256)]
        report = export(
            model.pixels,
            model.net,
            samples,
            path,
            classes=model.classes,
            size=datamodule.image_size,
            resize=datamodule.resize_mode,
            facts=checkpoints.facts(checkpoint, datamodule),
        )
        print(f"{report}\nwrote {path}\nnext: python -m cifar_onnx classify --model {path} PHOTO.jpg")
