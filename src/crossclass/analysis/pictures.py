"""A few of the measured images and what the attack made of them, for the page about a result file.

They lie in `<stem>-pictures.npz` beside the file, so that numbers can be given away without images, and hold
the checksum of that file. Nothing needs them: pictures that are absent, damaged or of another result file are
left out.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossclass.core.destinations import follow, takes_bytes
from crossclass.core.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

    from crossclass.analysis.evaluate import EvaluationPass
    from crossclass.data import Split, Splits

SIDE = 64
"""Larger images are reduced to so many pixels along a side."""
BYTES = 50_000
"""Room for images of one set: 10 of 32x32 pixels, or 4 of 64x64."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images [n, h, w, 1 or 3] as uint8 with what the network makes of them."""

    images: np.ndarray
    attacked: np.ndarray | None
    """The same under the attack, rounded to 8 bits; None without an attack."""
    labels: np.ndarray
    clean: np.ndarray
    """The predicted classes, -1 where the output is no number."""
    robust: np.ndarray
    reduced: bool = False
    """Whether the images are larger than shown."""
    parts: np.ndarray | None = None
    """The planted parts [p, s, s, 3] of a data set whose shared features are known."""
    shows: np.ndarray | None = None
    """Which class shows which part, bool [K, p]."""

    def __eq__(self, other: object) -> bool:
        """Whether all arrays are the same."""
        if not isinstance(other, Pictures):
            return NotImplemented
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)

    __hash__ = None  # type: ignore[assignment]


def chosen(labels: "Tensor", n: int) -> "Tensor":
    """Indices of at most n images, rising: the first of each class, then the second of each, and so on."""
    import torch

    y = labels.cpu().numpy()
    turn = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        turn[own] = np.arange(len(own))
    return torch.from_numpy(np.sort(np.lexsort((y, turn))[:n]))


def room_for(images: "Tensor", n: int) -> int:
    """How many of n images [m, c, h, w] are kept, so that their file stays small."""
    c, h, w = images.shape[1:]
    times = min(1.0, SIDE / max(h, w))
    return min(n, max(1, int(BYTES / (c * h * w * times**2))))


def pictures(evaluation: "EvaluationPass", part: "Split", splits: "Splits", n: int) -> Pictures | None:
    """At most n of the images of a part that its evaluation has kept; None if it kept none."""
    if not n or evaluation.images is None or evaluation.kept is None or not len(evaluation.kept):
        return None
    import torch

    n, index = room_for(part.images, n), evaluation.kept
    index = index[chosen(evaluation.labels[index], n)]
    order = index[evaluation.labels[index].argsort(stable=True)]
    judged = evaluation.images[torch.searchsorted(evaluation.kept, order)]
    images = part.images.cpu()[order].float() / 255
    attacked = not bool((judged == images).all())
    planted = splits.planted
    shows = None
    if planted is not None:
        shows = np.zeros((len(planted.shows), len(planted.parts)), dtype=bool)
        for k, own in enumerate(planted.shows):
            shows[k, list(own)] = True
    return Pictures(
        as_bytes(images),
        as_bytes(judged) if attacked else None,
        evaluation.labels[order].numpy(),
        evaluation.clean[order].numpy(),
        evaluation.robust[order].numpy(),
        max(images.shape[2:]) > SIDE,
        None if planted is None else planted.parts.permute(0, 2, 3, 1).numpy(),
        shows,
    )


def as_bytes(images: "Tensor") -> np.ndarray:
    """Images in [0, 1] as uint8, channels last, larger ones reduced by averaging."""
    import torch.nn.functional as F

    h, w = images.shape[2:]
    if max(h, w) > SIDE:
        times = SIDE / max(h, w)
        images = F.adaptive_avg_pool2d(images, (max(1, round(h * times)), max(1, round(w * times))))
    whole: np.ndarray = (255 * images).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return whole


def picture_file(results: Path) -> Path:
    """Where the pictures of a result file lie, or of the file at the end of a symbolic link."""
    results = follow(results)
    return results.with_name(f"{results.stem}-pictures.npz")


def write_pictures(results: Path, shown: Sequence[Pictures | None]) -> None:
    """Write the pictures of each result beside the result file, which is written already; none, no file.

    Beside a pipe or a device there is none either.
    """
    if any(one is not None for one in shown) and not takes_bytes(follow(results)):
        write_atomic(picture_file(results), _packed(shown, _sha256(results)))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _packed(shown: Sequence[Pictures | None], of_file: str) -> bytes:
    """An npz file: images once, attacked ones as differences."""
    sets: list[Pictures] = []
    arrays: dict[str, Any] = {}
    of = []
    for i, one in enumerate(shown):
        if one is None:
            of.append(-1)
            continue
        same = [j for j, other in enumerate(sets) if _same_images(one, other)]
        if not same:
            sets.append(one)
            about = {"images": one.images, "labels": one.labels, "reduced": one.reduced}
            about |= {"parts": one.parts, "shows": one.shows}
            arrays |= {f"{key}_{len(sets) - 1}": v for key, v in about.items() if v is not None}
        of.append(same[0] if same else len(sets) - 1)
        arrays |= {f"clean_of_{i}": one.clean, f"robust_of_{i}": one.robust}
        if one.attacked is not None:
            arrays[f"difference_of_{i}"] = one.attacked - one.images  # modulo 256: few values, packed well
    stream = io.BytesIO()
    np.savez_compressed(stream, of_file=np.array(of_file), set=np.array(of), **arrays)
    return stream.getvalue()


def _same_images(a: Pictures, b: Pictures) -> bool:
    return np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)


def load_pictures(results: Path, n: int) -> list[Pictures | None]:
    """The pictures of the n results of a file; None where they are absent, damaged or of another file."""
    nothing: list[Pictures | None] = [None] * n
    try:
        with np.load(io.BytesIO(picture_file(results).read_bytes())) as archive:
            if str(archive["of_file"]) != _sha256(results) or len(archive["set"]) != n:
                return nothing
            return [_read(archive, i, int(j)) for i, j in enumerate(archive["set"])]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return nothing


def _read(archive: Any, i: int, j: int) -> Pictures | None:
    if j < 0:
        return None
    images = archive[f"images_{j}"]
    difference = f"difference_of_{i}"
    parts, shows = (archive.get(f"{key}_{j}") for key in ("parts", "shows"))
    return Pictures(
        images,
        images + archive[difference] if difference in archive else None,
        archive[f"labels_{j}"],
        archive[f"clean_of_{i}"],
        archive[f"robust_of_{i}"],
        bool(archive[f"reduced_{j}"]),
        parts,
        shows,
    )
