"""A checkpoint is one safetensors file that carries its card: what it is, how it was chosen, its checksum.

Reading one executes nothing. The card sits in the file's metadata, so weights and words cannot part.
(The reader of other people's files is another matter, and another module.)
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from crossclass.core.errors import UserError
from crossclass.core.files import write_atomic

_CARD = "crossclass"


class DamagedError(UserError):
    """A checkpoint that was cut off or changed after it was written."""


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, dtypes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write tensors (any device or layout) and their card in one step; raises UserError if it cannot."""
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    words = json.dumps({**card, "sha256": fingerprint(plain)}, sort_keys=True)
    write_atomic(path, to_bytes(plain, {_CARD: words}))


def is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint of ours, or lies where only these lie; reads no more than its head."""
    try:
        with safe_open(path, framework="pt") as file:
            return _CARD in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return (path.parent / "config.yaml").exists()


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and card; raises DamagedError if the file is not what was written, UserError if not ours."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}; give a run folder or a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            words = (file.metadata() or {}).get(_CARD)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as e:
        raise DamagedError(f"{path} is damaged or not a safetensors file; restore or retrain it") from e
    if words is None:
        raise UserError(f"{path} was not written by crossclass: it carries no card")
    try:
        card: dict[str, Any] = json.loads(words)
    except json.JSONDecodeError as e:
        raise DamagedError(f"{path} is damaged: its card is not readable; restore or retrain it") from e
    if fingerprint(tensors) != card.get("sha256"):
        raise DamagedError(f"{path} is damaged: its checksum does not fit; restore or retrain it")
    return tensors, card
