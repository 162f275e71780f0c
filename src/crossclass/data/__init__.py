"""Data sets are settings that are called for their images: bytes on a device, in three parts.

The validation part follows the training part in the same order and is never trained on. Where files lie
(`path`) is no part of what a run is; their checksum is. Each data set is one file.
"""

from typing import Annotated

from crossclass.core.plugins import Family
from crossclass.data.arrays import Npz
from crossclass.data.base import ArraySplit, Data, Split, Splits, as_float, batches
from crossclass.data.cifar import CIFAR10, CIFAR100
from crossclass.data.digits import Digits
from crossclass.data.folders import Folder
from crossclass.data.shapes import Shapes
from crossclass.data.subset import Checksummed, Downloadable, Stored, Subset
from crossclass.data.tiny_imagenet import TinyImageNet

AnyData = Annotated[Data, Family(Shapes, Digits, CIFAR10, CIFAR100, TinyImageNet, Npz, Folder)]

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "AnyData",
    "ArraySplit",
    "Checksummed",
    "Data",
    "Digits",
    "Downloadable",
    "Folder",
    "Npz",
    "Shapes",
    "Split",
    "Splits",
    "Stored",
    "Subset",
    "TinyImageNet",
    "as_float",
    "batches",
]
