"""Image files become arrays: folders of classes, and the pixels of one file as RGB."""

import warnings
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import model_validator

from crossclass.core.errors import did_you_mean
from crossclass.data.base import ArraySplit, Part, Splits, demand, guarded, hint
from crossclass.data.subset import Checksummed

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"})
"""Of what must be a readable image; another file is one if Pillow knows its first bytes."""
ONE_SIZE = (
    "bring all images to one size before, as with Image.resize of Pillow (docs/data.md has the lines): there "
    "is no setting for it"
)
SAVE_AGAIN = "save it again or remove it"


def read_folder(folder: Path, split: Part, channels: int = 3, to_gray: bool = False) -> ArraySplit:
    """`<folder>/<split>/<class>/<image>` as RGB or gray, sorted by name; `train` says what classes exist.

    What else is visible there is counted (`left_out`): files that are no images, and sub-folders of a class.
    """
    demand(folder.is_dir(), folder, "there is no such folder", "correct data.path")
    part, put = folder / split, f"put images into {split}/<class>"
    demand(part.is_dir(), part, "there is no such folder", put + hint(part, "folder"))
    home = folder / "train" if (folder / "train").is_dir() else part
    # From `home`, so that a class without test images keeps its index.
    names = tuple(path.name for path in visible(home) if path.is_dir())
    by_case = {name.casefold(): name for name in names}
    twin = next((name for name in names if by_case[name.casefold()] != name), None)
    what = f"holds '{twin}' and '{by_case.get((twin or '').casefold())}', which differ in case only"
    demand(twin is None, home, what, "put them into one folder, or give them other names")
    for path in {*visible(home), *visible(part)}:
        demand(path.exists(), path, "is a link to nothing", "restore the folder that it names, or remove it")
    tiny = ", or use data.kind=tiny_imagenet" if (folder / "wnids.txt").is_file() else ""
    files: list[tuple[Path, int]] = []
    other = [path for path in visible(part) if path.is_file()]
    deeper: list[Path] = []
    for subfolder in (path for path in visible(part) if path.is_dir()):
        near = "" if subfolder.name in names else did_you_mean(subfolder.name, names)
        demand(subfolder.name in names, subfolder, f"is no class of {home}", f"rename it or add it{near}")
        images = list[Path]()
        for path in visible(subfolder):
            demand(
                path.exists(), path, "is a link to nothing", "restore the file that it names, or remove it"
            )
            (images if is_readable(path) else deeper if path.is_dir() else other).append(path)
        demand(len(images) > 0 or home != part, subfolder, "holds no images", f"add some or remove it{tiny}")
        files += [(path, names.index(subfolder.name)) for path in images]
    demand(len(files) > 0, part, "has no class folders with images", put)
    labels = np.array([label for _, label in files], dtype=np.int64)
    pixels = stack([path for path, _ in files], channels=channels, to_gray=to_gray)
    return ArraySplit(pixels, labels, names, _left_out(part, len(files), other, deeper))


def _left_out(part: Path, read: int, other: list[Path], folders: list[Path]) -> str:
    """How many files under a part were not read, and why; empty if all were."""
    inside = [p for folder in folders for p in folder.rglob("*") if p.is_file() and p.name[0] != "."]
    kinds = ((other, "that are no images", other), (inside, "in a sub-folder of a class", folders))
    counted = [
        f"{len(files)} {what} (such as {such[0].relative_to(part)})" for files, what, such in kinds if files
    ]
    left = len(other) + len(inside)
    return (
        f"{left} of {read + left} files in {part.name}/ were left out: {', '.join(counted)}" if left else ""
    )


def is_readable(path: Path) -> bool:
    """Whether a path is a file that is named as images are, or begins as one."""
    if is_image(path) or not path.is_file():
        return path.is_file()
    try:
        with Image.open(path):
            return True
    except Image.DecompressionBombError:  # `rgb` says so
        return True
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for files of others
        return False


def is_image(path: Path) -> bool:
    """Whether a path is a file with a name as images have."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, hidden things left out."""
    with guarded(folder, "cannot be listed", "check its permissions"):
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def stack(
    paths: list[Path],
    size: tuple[int, int] | None = None,
    todo: str = SAVE_AGAIN,
    channels: int = 3,
    to_gray: bool = False,
) -> np.ndarray:
    """uint8 [n, h, w, channels]; all images must have one size: (height, width), or else that of the first.

    One channel is that of gray images; `to_gray` converts images in colour, which are refused without it.
    """
    h, w = size or rgb(paths[0], todo).shape[:2]
    with guarded(paths[0].parent, f"{len(paths)} images of {w} x {h} do not fit", "use fewer"):
        images = np.empty((len(paths), h, w, channels), dtype=np.uint8)
    wanted = f"not {w} x {h}" if size else f"but {paths[0]} is {w} x {h}"
    for i, path in enumerate(paths):
        image = rgb(path, todo)
        what = f"is {image.shape[1]} x {image.shape[0]} pixels, {wanted}"
        demand(image.shape == (h, w, 3), path, what, todo if size else ONE_SIZE)
        images[i] = image if channels == 3 else _gray(path, image, to_gray)
    return images


def _gray(path: Path, image: np.ndarray, convert: bool) -> np.ndarray:
    """The one channel [h, w, 1] of an image whose three are equal; its luma (ITU-R 601) if `convert`."""
    if convert:
        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    equal = bool((image == image[..., :1]).all())
    demand(equal, path, "is in colour", "leave out data.channels=1, or convert all with data.to_gray=true")
    return image[..., :1]


def rgb(path: Path, todo: str = SAVE_AGAIN) -> np.ndarray:
    """The pixels as they are stored: EXIF does not turn them, and an alpha channel is dropped."""
    with guarded(path, "is no readable image", todo), warnings.catch_warnings():
        # Pillow only warns up to twice its limit; 90 million pixels are no training image.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            whole = image.mode[0] not in "IF"  # `convert` would clip more bits at 255 without a word
            demand(whole, path, f"has mode {image.mode}", "save it with 8 bits per channel")
            frames = getattr(image, "n_frames", 1)
            demand(frames == 1, path, f"holds {frames} frames or pages", "save each as an image of its own")
            image.load()
            image.info.pop("transparency", None)  # of a palette; Pillow warns that it will be lost
            return np.asarray(image.convert("RGB"))


class Folder(Checksummed):
    """`train/<class>/*.png` and `test/<class>/*.png`: class sub-folders of images of equal size.

    `test` alone is enough for measuring; there are no training images then.
    """

    kind: Literal["folder"] = "folder"
    channels: Literal[1, 3] | None = None
    """Of the images: 3 is RGB, in which gray is repeated; 1 refuses pictures in colour. Unset is 3, and a
    network that takes one channel gets one of them where all pictures are gray."""
    to_gray: bool = False
    """With `channels=1`, convert pictures in colour to gray."""

    @model_validator(mode="after")
    def _one_channel(self) -> "Folder":
        if self.to_gray and self.channels != 1:
            raise ValueError("to_gray=true makes images of one channel; give channels=1 with it")
        return self

    def __call__(self) -> Splits:
        """Read all images."""
        reader = partial(read_folder, channels=self.channels or 3, to_gray=self.to_gray)
        return self.read("{}", reader, "train/<class>/ and test/<class>/")

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """Whether there are images in folders of a folder."""
        # a bounded look, because this may be any folder, such as a home folder
        return any(is_image(path) for path in islice(folder.glob("*/**/*"), 1000))
