"""A data set is a frozen object that is called for its splits: tensors of bytes, on a device.

The validation part follows the training part in the same order and is never trained on. Where the files
lie (`path`) is never part of what a run is; their checksum is.
"""

from typing import Annotated, Literal

from pydantic import Field

from crossclass.core.family import Family
from crossclass.data import readers
from crossclass.data.base import Split, Splits, as_float, batches
from crossclass.data.shapes import Shapes
from crossclass.data.subset import Sealed, Stored, Subset
from crossclass.data.tiny_imagenet import ClassOrder

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "AnyData",
    "Digits",
    "Folder",
    "Npz",
    "Sealed",
    "Shapes",
    "Split",
    "Splits",
    "Stored",
    "Subset",
    "TinyImageNet",
    "as_float",
    "batches",
]


class Digits(Subset):
    """scikit-learn's 1,797 scanned digits, 8x8, gray: real images that need no download.

    The last 297 are the test part. Robust overfitting is only slight on them.
    """

    kind: Literal["digits"] = "digits"
    n_val: int = Field(300, ge=0)

    def __call__(self) -> Splits:
        """Read the digits."""
        raw = readers.read_digits()
        tail = readers.ArraySplit(raw.images[1500:], raw.labels[1500:], raw.class_names)
        return self.cut(raw.first(1500), tail, "digits")


class Fetched(Stored):
    """A published data set, from an existing download or from its address."""

    download: bool = Field(False, exclude=True)
    """Fetch the archive (170 to 250 MB) into `path` if the data are not there."""


class CIFAR10(Fetched):
    """CIFAR-10 (Krizhevsky 2009) from an existing download, or downloaded; checksums verified."""

    kind: Literal["cifar10"] = "cifar10"

    def __call__(self) -> Splits:
        """Read both parts."""
        place = self.place("cifar-10-batches-py or cifar-10-python.tar.gz")
        train = readers.read_cifar10(place, "train", self.download)
        return self.cut(train, readers.read_cifar10(place, "test"), str(place))


class CIFAR100(Fetched):
    """CIFAR-100 (Krizhevsky 2009), the 100 fine labels; checksums verified."""

    kind: Literal["cifar100"] = "cifar100"

    def __call__(self) -> Splits:
        """Read both parts."""
        place = self.place("cifar-100-python or cifar-100-python.tar.gz")
        train = readers.read_cifar100(place, "train", self.download)
        return self.cut(train, readers.read_cifar100(place, "test"), str(place))


class TinyImageNet(Fetched):
    """Tiny-ImageNet: 200 classes, 64x64; the official validation images are the test part (50 per class).

    Training images come by turns, one of each class, so `n_val=10000` holds out the last 50 of each
    class. The decoded pixels are kept beside the images, where the folder can be written to.
    """

    kind: Literal["tiny_imagenet"] = "tiny_imagenet"
    class_order: ClassOrder = "wnids"
    """Labels as in wnids.txt, or in `sorted` order, as in other people's models trained on image folders."""

    def __call__(self) -> Splits:
        """Read both parts; the first time decodes 110,000 JPEGs."""
        place = self.place("tiny-imagenet-200 or tiny-imagenet-200.zip")
        train = readers.read_tiny_imagenet(place, "train", self.download, self.class_order)
        test = readers.read_tiny_imagenet(place, "test", False, self.class_order)
        return self.cut(train, test, str(place))


class Npz(Sealed):
    """`train.npz` and `test.npz` in a folder: arrays `images`, `labels`, and maybe `class_names`.

    `test.npz` alone is enough for measuring; there are no training images then.
    """

    kind: Literal["npz"] = "npz"

    def __call__(self) -> Splits:
        """Read both files."""
        place = self.place("train.npz and test.npz")
        alone = (place / "test.npz").is_file() and not (place / "train.npz").exists()
        train = None if alone else readers.read_npz(place, "train")
        test = readers.read_npz(place, "test")
        return self.seal(self.cut(train or test.first(0), test, str(place)), place)


class Folder(Sealed):
    """`train/<class>/*.png` and `test/<class>/*.png`: class sub-folders of images of equal size.

    `test` alone is enough for measuring; there are no training images then.
    """

    kind: Literal["folder"] = "folder"

    def __call__(self) -> Splits:
        """Read all images."""
        place = self.place("train/<class>/ and test/<class>/")
        alone = (place / "test").is_dir() and not (place / "train").exists()
        train = None if alone else readers.read_folder(place, "train")
        test = readers.read_folder(place, "test")
        return self.seal(self.cut(train or test.first(0), test, str(place)), place)


AnyData = Annotated[Shapes | Digits | CIFAR10 | CIFAR100 | TinyImageNet | Npz | Folder, Family()]
