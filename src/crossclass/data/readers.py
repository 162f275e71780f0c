"""Bytes to arrays: every kind of data set on disk becomes images, labels and class names.

What is read is judged before it is believed: a checksum before a pickle, names and sizes before an
archive is unpacked, shapes and ranges before an array. What is wrong is said in one sentence: where
it is, what it is, what to do. Images stay at 8 bits; whoever draws a batch scales it to [0, 1].
"""

from crossclass.data.arrays import read_npz
from crossclass.data.cifar import read_cifar10, read_cifar100
from crossclass.data.digits import read_digits
from crossclass.data.folders import read_folder
from crossclass.data.raw import ArraySplit, checksum
from crossclass.data.tiny_imagenet import read_tiny_imagenet

__all__ = [
    "ArraySplit",
    "checksum",
    "read_cifar10",
    "read_cifar100",
    "read_digits",
    "read_folder",
    "read_npz",
    "read_tiny_imagenet",
]
