"""Data modules: where images come from, and how they become batches."""

from cifar_lightning.data.base import ImageData
from cifar_lightning.data.cifar import CIFAR10, CIFAR100
from cifar_lightning.data.digits import Digits
from cifar_lightning.data.folder import ImageFolder
from cifar_lightning.data.imagenet import ImageNet
from cifar_lightning.data.images import Images

__all__ = ["CIFAR10", "CIFAR100", "Digits", "ImageData", "ImageFolder", "ImageNet", "Images"]
