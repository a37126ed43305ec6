"""Knowledge distillation: a loss by which a small net learns from the predictions of a large one."""

from torch import Tensor, no_grad
from torch.nn.functional import kl_div

from cifar_lightning import trained
from cifar_lightning.loss import CrossEntropy
from cifar_lightning.module import Classifier
from cifar_onnx import InputError


class Distillation(CrossEntropy):
    """Cross-entropy with the labels and, in training, with a teacher's answers to the same images.

    With logits `z` and, of the teacher, `t`, both `(B, K)`, it is

    `(1 - weight) CE(z, labels) + weight T^2 KL(softmax(t / T) || softmax(z / T))`

    where `T^2` makes up for gradients that fall as `1 / T^2` (Hinton, Vinyals, Dean 2015,
    https://arxiv.org/abs/1503.02531, section 2). In evaluation mode it is cross-entropy alone, and needs no teacher.

    Args:
        teacher: a checkpoint that knows the same classes; read before the first step of training.
        temperature: `T`. A teacher that was trained with label smoothing is soft as it is, at 1.
        weight: share of the teacher, 0 to 1.
        label_smoothing: share of the labels spread over all classes, 0 to 1.
    """

    def __init__(
        self, teacher: str, temperature: float = 4.0, weight: float = 0.9, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(label_smoothing)
        if temperature <= 0:
            raise InputError(f"model.loss.temperature is {temperature:g}: it must be above 0")
        if not 0 <= weight <= 1:
            raise InputError(f"model.loss.weight is {weight:g}: it must lie between 0 and 1")
        self.teacher, self.temperature, self.share = teacher, temperature, weight
        self._loaded: list[Classifier] = []  # in a list it is no part of this module: its weights are not the student's

    def forward(self, logits: Tensor, labels: Tensor, images: Tensor, classes: list[str]) -> Tensor:  # type: ignore[override]
        """The mean loss of logits `(B, K)` and labels `(B,)`, or shares of the classes `(B, K)`.

        Args:
            logits: the student's.
            labels: numbers of the classes, or the shares.
            images: pixels 0..255 `(B, 3, S, S)` that the logits are of.
            classes: names, in the order of the logits.

        Raises:
            InputError: there is no such teacher, or it knows other classes, or images of another size.
        """
        hard = super().forward(logits, labels)
        if not self.training:
            return hard
        if not self._loaded:
            teacher = trained.load(self.teacher, classes, advice=trained.NO_OTHER).to(logits.device)
            if (size := teacher.input_rule.get("image_size")) not in (None, images.shape[-1]):
                raise InputError(
                    f"{self.teacher} was trained with data.image_size {size}, and the data has {images.shape[-1]}"
                )
            self._loaded.append(teacher)
        with no_grad():
            answers = (self._loaded[0](images).float() / self.temperature).log_softmax(1)  # its net may be in bfloat16
        own = (logits / self.temperature).log_softmax(1)
        soft = self.temperature**2 * kl_div(own, answers, reduction="batchmean", log_target=True)
        return (1 - self.share) * hard + self.share * soft
