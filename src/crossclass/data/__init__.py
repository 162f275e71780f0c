"""Data sets are settings that are called for their images: bytes on a device, in three parts.

The validation part follows the training part in the same order and is never trained on. Where files lie
(`path`) is no part of what a run is; their checksum is. Each data set is one file.
"""

from typing import Annotated

from crossclass.core.plugins import Family
from crossclass.data.arrays import Npz as Npz
from crossclass.data.base import (
    ArraySplit as ArraySplit,
    Data as Data,
    Split as Split,
    Splits as Splits,
    as_float as as_float,
    batches as batches,
)
from crossclass.data.cifar import CIFAR10 as CIFAR10, CIFAR100 as CIFAR100
from crossclass.data.digits import Digits as Digits
from crossclass.data.folders import Folder as Folder
from crossclass.data.shapes import Shapes as Shapes
from crossclass.data.subset import Subset as Subset
from crossclass.data.tiny_imagenet import TinyImageNet as TinyImageNet

AnyData = Annotated[Data, Family(Shapes, Digits, CIFAR10, CIFAR100, TinyImageNet, Npz, Folder)]
