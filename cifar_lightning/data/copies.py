"""Duplicates: pictures that are equal pixel for pixel."""

import sys

from cifar_lightning.data.images import Images, Part
from cifar_onnx.shell import say


def tell(trained: Images, classes: list[str], judged: Images, part: Part) -> None:
    """Say which pictures make a figure too good, and which have labels that contradict each other.

    Args:
        trained: the images of train.
        classes: the names of their labels.
        judged: those of another part, on which figures are measured.
        part: which one.
    """
    if trained.fingerprints is None or judged.fingerprints is None:
        return
    known: dict[bytes, int] = {}
    contradictions = []
    for place, copy in enumerate(trained.fingerprints.tolist()):
        first = known.setdefault(copy, place)
        if trained.labels[first] != trained.labels[place]:
            contradictions.append((first, place))
    if contradictions:
        named = " and ".join(f"{trained.names[i]} ({classes[trained.labels[i]]})" for i in contradictions[0])
        say(f"training images with a copy of another label: {len(contradictions)}, such as {named}", sys.stderr)
    shared = [(place, known[copy]) for place, copy in enumerate(judged.fingerprints.tolist()) if copy in known]
    if shared:
        place, first = shared[0]
        say(
            f"{len(shared)} of {len(judged)} {part} images are also training images, such as {judged.names[place]} "
            f"({trained.names[first]}): results look better than they are",
            sys.stderr,
        )
