"""Which images of a data set a run uses, where its files lie, and the checksum that identifies them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from crossclass.core.errors import UserError
from crossclass.data.base import ArraySplit, Data, Part, Split, Splits, checksum, demand
from crossclass.data.draw import draw


class Subset(Data):
    """Which images of a data set are used; the sizes and the order are part of a run."""

    n_train: int | None = Field(default=None, ge=1)
    """Images to train on; unset is all that are not held out."""
    n_val: int = Field(default=0, ge=0)
    """Images held out of the training file, never trained on; in file order, those right after the training
    part."""
    n_test: int | None = Field(default=None, ge=1)
    """Test images; unset is all."""
    balanced: bool | None = None
    """Whether parts are drawn over the whole file, class-balanced by `subset_seed`, or cut in order (false).
    Unset, a part is drawn, and a whole file keeps its order."""
    subset_seed: int = Field(default=0, ge=0, lt=2**63)
    """Of drawn parts; the run's `seed` does not change them."""

    @property
    def draw_seed(self) -> int:
        """The seed of drawn parts."""
        return self.subset_seed

    def cut(self, train: ArraySplit, test: ArraySplit, where: str) -> Splits:
        """The three parts of what the files hold, drawn or in file order, as tensors.

        Raises UserError, with `where` in it, if training and test images do not fit together or are too few.
        """
        if train.images.shape[1:] != test.images.shape[1:]:
            a, b = train.images.shape[1:], test.images.shape[1:]
            raise UserError(f"{where}: training images are {a} and test images {b}; make them equal")
        names = max(train.class_names, test.class_names, key=len)
        if len(names) < 2:
            raise UserError(f"{where}: there is one class, '{names[0]}'; a classifier needs two or more")
        for split in (train, test):  # files without names count classes up to their largest label
            if split.class_names != names[: len(split.class_names)]:
                raise UserError(f"{where}: training and test parts name different classes; make them equal")
        # Unset, the training part is the rest, but at least one image if there is any.
        least = 1 if len(train.labels) or self.n_val else 0
        n_train = self.n_train or max(len(train.labels) - self.n_val, least)
        n_test = len(test.labels) if self.n_test is None else self.n_test
        wanted = {"n_train + n_val": (n_train + self.n_val, len(train.labels), "training")}
        wanted["n_test"] = (n_test, len(test.labels), "test")
        for name, (n, available, kind) in wanted.items():
            if n > available:
                raise UserError(
                    f"{where}: data.{name} is {n}, but there are {available} {kind} images; lower it"
                )
        first, second = self._chosen(train.labels, (n_train, self.n_val), 0)
        (third,) = self._chosen(test.labels, (n_test,), 1)
        parts = [_take(train, first), _take(train, second), _take(test, third)]
        digits = checksum(*(array for part in parts for array in (part.images, part.labels)))
        training, validation, testing = (_split(part) for part in parts)
        files: tuple[tuple[Part, ArraySplit], ...] = (("train", train), ("test", test))
        left_out = tuple((part, split.left_out) for part, split in files if split.left_out)
        return Splits(training, validation, testing, names, digits, left_out=left_out)

    def _chosen(
        self, labels: np.ndarray, sizes: tuple[int, ...], stream: int
    ) -> Sequence[np.ndarray | slice]:
        """Which images of a file its parts hold: slices in the order of the file, else drawn indices."""
        ends = np.cumsum(sizes)
        whole = sizes[0] == len(labels)  # a part of a set in another order is the set: no copy is made
        if not (not whole if self.balanced is None else self.balanced):
            return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        return draw(labels, sizes, self.subset_seed, stream)


class Stored(Subset):
    """A data set in files: where they lie is no part of a run, what they hold is."""

    path: Path | None = Field(default=None, exclude=True)
    """Folder of the files; never written into a run's settings."""

    def folder(self, needs: str) -> Path:
        """The folder; raises UserError with the remedy if none was given."""
        if self.path is None:
            raise UserError(f"data.path is not set; give data.path=DIR where DIR holds {needs}")
        return Path(os.path.expanduser(self.path))


class Downloadable(Stored):
    """A published data set, from an existing download or from its address."""

    download: bool = Field(default=False, exclude=True)
    """Fetch the archive (170 to 250 MB) into `path` if the data are not there."""


class Checksummed(Stored):
    """A folder of one's own files: their checksum identifies them in the run.

    Files of the test part alone are enough for measuring; there are no training images then.
    """

    checksum: str | None = None
    """Filled in when the files are read; given, it is checked."""

    def read(self, name: str, reader: Callable[[Path, Part], ArraySplit], needs: str) -> Splits:
        """Both parts by a reader; `name`, such as `{}.npz`, is that of a part's file.

        Raises UserError if they are absent, damaged, or have another checksum than that of this run.
        """
        where = self.folder(needs)
        train_file, test_file = (where / name.format(part) for part in ("train", "test"))
        test_alone = test_file.exists() and not train_file.exists()
        train = None if test_alone else reader(where, "train")
        test = reader(where, "test")
        for name_of, part in (("train", train), ("test", test)):
            what = f"all pixels of the {name_of} images are 0 or 1 of 255, so they are black"
            black = part is not None and int(part.images.max()) == 1
            demand(not black, where, what, "multiply by 255, or save floats in [0, 1]")
        splits = self.cut(train or test.first(0)._replace(left_out=""), test, str(where))
        if self.checksum is not None and self.checksum != splits.checksum:
            raise UserError(
                f"the images under {where} are not those of this run (checksum {splits.checksum}, "
                f"expected {self.checksum}); give the original files with data.path=DIR"
            )
        return splits


def _take(split: ArraySplit, index: np.ndarray | slice) -> ArraySplit:
    # By a slice no copy is made: a large data set may fill half of the memory.
    return ArraySplit(np.ascontiguousarray(split.images[index]), split.labels[index], split.class_names)


def _split(split: ArraySplit) -> Split:
    nchw = torch.from_numpy(split.images).permute(0, 3, 1, 2).contiguous()
    return Split(nchw, torch.from_numpy(np.ascontiguousarray(split.labels, dtype=np.int64)))
