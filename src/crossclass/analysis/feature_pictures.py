"""Images of the features that a run's most shared pairs of classes have in common, for its page.

They lie in `<stem>-features.npz` beside the result file and hold the checksum of that file. Nothing needs
them: pictures that are absent, damaged or of another result file are left out.
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

from crossclass.analysis.pictures import SIDE, as_bytes
from crossclass.core.destinations import follow, takes_bytes
from crossclass.core.files import write_atomic

if TYPE_CHECKING:
    from crossclass.analysis.feature_images import Evaluated
    from crossclass.analysis.forgotten_records import SharedAndForgotten, SharedPair

CHOOSE_FROM = 2**26
"""Bytes of adversarial images in float32 that are kept during the pass to choose from."""
BYTES = 300_000
"""Room for all images of a file."""
PAIRS, FEATURES, IMAGES = 3, 3, 4
"""At most so many pairs of classes, features of each, and images of each class."""


@dataclass(frozen=True, eq=False)
class FeaturePicture:
    """One feature on images of one class, the strongest first, at two checkpoints."""

    pair: tuple[int, int]
    """The pair of classes for which it is shown."""
    k: int
    of_class: int
    images: np.ndarray
    """Adversarial images of the first checkpoint [m, h, w, 1 or 3] as uint8."""
    maps: np.ndarray
    """Where the feature lies in them at each checkpoint [2, m, h, w] as uint8; all maps of a feature have
    one scale."""
    adds: np.ndarray
    """What it adds to the logit of the class on each image at each checkpoint, [2, m]."""


def shown_features(pair: "SharedPair") -> list[int]:
    """The features of a pair that are drawn: those that carry most, and the one that lost most."""
    ks = [f.k for f in pair.features]
    lost = max(pair.features, key=lambda f: f.C[0] - f.C[1], default=None)
    first = ks[: FEATURES - 1]
    return first + [k for k in ([lost.k] if lost else []) + ks if k not in first][:1]


def feature_pictures(seen: Sequence["Evaluated"], numbers: "SharedAndForgotten") -> list[FeaturePicture]:
    """Images of the features of the most shared pairs; few enough for a small file.

    Args:
        seen: Best and last, the pass of the first with images to choose from.
        numbers: Which pairs and features there are.

    Raises:
        UserError: where the network shows no map of the image.
    """
    import torch.nn.functional as F

    from crossclass.analysis.feature_images import sheet_rows

    first = seen[0][1]
    if first.images is None or not len(first.images):
        return []
    c, h, w = first.images.shape[1:]
    size = c * h * w * min(1.0, SIDE / max(h, w)) ** 2
    fit = int(BYTES / (size * 2 * FEATURES))  # images of each class of one pair, or of several pairs
    pairs = numbers.pairs[: max(1, min(PAIRS, fit // 2))]
    images = max(1, min(IMAGES, fit // max(1, len(pairs))))
    wanted = [((p.i, p.j), k, i) for p in pairs for k in shown_features(p) for i in (p.i, p.j)]
    names = [str(i) for i in range(first.classes)]
    rows = sheet_rows(seen, list(dict.fromkeys((k, i) for _, k, i in wanted)), names, images)
    there = {(row.k, int(row.class_name)): row for row in rows}
    out = []
    for pair, k, i in wanted:
        both = [there[k, c] for c in pair if (k, c) in there]
        if (k, i) not in there:
            continue
        row, top = there[k, i], max(float(m.max()) for one in both for m in one.maps)
        shown = as_bytes(row.images)
        maps = [F.adaptive_avg_pool2d(m[:, None], shown.shape[1:3])[:, 0] for m in row.maps]
        scaled = [(255 * m.clamp(min=0) / (top or 1.0)).round().byte().numpy() for m in maps]
        adds = np.stack([a.numpy() for a in row.adds]).astype(np.float32)
        out.append(FeaturePicture(pair, k, i, shown, np.stack(scaled), adds))
    return out


def feature_picture_file(results: Path) -> Path:
    """Where these pictures of a result file lie, or of the file at the end of a symbolic link."""
    results = follow(results)
    return results.with_name(f"{results.stem}-features.npz")


def write_feature_pictures(results: Path, shown: Sequence[Sequence[FeaturePicture] | None]) -> None:
    """Write the pictures of each comparison beside the result file, which is there already; none, no file."""
    if not any(shown) or takes_bytes(follow(results)):
        return
    arrays: dict[str, Any] = {"of_file": np.array(_sha256(results))}
    for n, pictures in enumerate(shown):
        for m, one in enumerate(pictures or ()):
            about = np.array([*one.pair, one.k, one.of_class])
            arrays |= {f"about_{n}_{m}": about, f"images_{n}_{m}": one.images}
            arrays |= {f"maps_{n}_{m}": one.maps, f"adds_{n}_{m}": one.adds}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    write_atomic(feature_picture_file(results), stream.getvalue())


def load_feature_pictures(results: Path, n: int) -> list[FeaturePicture]:
    """The pictures of the n-th comparison of a file; none where they are absent, damaged or of another."""
    out: list[FeaturePicture] = []
    try:
        with np.load(io.BytesIO(feature_picture_file(results).read_bytes())) as archive:
            if str(archive["of_file"]) != _sha256(results):
                return []
            while f"about_{n}_{len(out)}" in archive:
                i, j, k, c = (int(v) for v in archive[f"about_{n}_{len(out)}"])
                parts = (archive[f"{key}_{n}_{len(out)}"] for key in ("images", "maps", "adds"))
                out.append(FeaturePicture((i, j), k, c, *parts))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return []
    return out


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
