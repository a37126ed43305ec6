"""Nets: from normalised pixels `(B, 3, S, S)` to logits `(B, K)`. They know nothing of Lightning."""

from cifar_lightning.nets.cnn import CNN
from cifar_lightning.nets.normalize import Normalize
from cifar_lightning.nets.speed import SpeedNet
from cifar_lightning.nets.whitening import Whitening
from cifar_lightning.nets.zoo import Timm, Torchvision

__all__ = ["CNN", "Normalize", "SpeedNet", "Timm", "Torchvision", "Whitening"]
