"""A checkpoint of this project: a safetensors file whose header holds a card.

The card says what the network is, how the checkpoint was chosen and the checksum of the tensors. A file is a
checkpoint of this project because its header holds a card, and for no other reason. Reading one runs no code.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from crossclass.attacks.norms import AnyThreat
from crossclass.core.config import error_sentence
from crossclass.core.errors import UserError, first_line
from crossclass.core.files import json_text, write_atomic
from crossclass.data import AnyData
from crossclass.models import AnyModel

SCHEMA = 1
"""The version of the card; a file with a newer one is refused."""
_KEY = "crossclass"
_RESTORE = "restore or retrain it"


class DamagedError(UserError):
    """A checkpoint that was cut off or changed after it was written."""


class Card(BaseModel):
    """What a checkpoint says about itself, enough to measure it without its run folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    schema_version: Literal[1] = Field(default=1, alias="schema")
    checkpoint: str
    """`best.val`, `best.test`, `last`, `epoch_010`."""
    epoch: NonNegativeInt
    chosen_by: str | None = None
    """The part on which it was chosen, `val` or `test`; null for `last`."""
    digest: str | None = None
    """Of the run that it belongs to."""
    model: AnyModel
    classes: PositiveInt
    channels: PositiveInt
    size: PositiveInt | tuple[PositiveInt, PositiveInt]
    """Height and width of the images in pixels; one number where they are equal."""
    class_names: list[str] = []
    data: AnyData | None = None
    """The data set of the run; never where it lies."""
    threat: AnyThreat | None = None
    """The perturbations that it was trained against; null for standard training."""
    recipe: dict[str, Any] = {}
    seed: int = 0
    check: str | None = None
    """The attack of the checks, in words."""
    scores: dict[str, float | None] = {}
    sha256: str | None = None
    """Of the tensors (`fingerprint`); set when the file is written."""


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, dtypes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], card: Card) -> None:
    """Write weights (on any device) and their card in one step; raises UserError if the disk is full."""
    save_tensors(path, tensors, card.model_dump(mode="json", by_alias=True))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors that are no network, such as a state of training, with a header of plain data."""
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    words = json_text({"schema": SCHEMA, **header, "sha256": fingerprint(plain)}, None, sort_keys=True)
    write_atomic(path, to_bytes(plain, {_KEY: words}))


def has_card(path: Path) -> bool:
    """Whether the header of a file says that this project wrote it; reads no more than the header.

    Raises DamagedError for a safetensors file whose header cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as e:
        with path.open("rb") as raw:
            if raw.read(9)[8:] == b"{":  # as a safetensors file begins
                raise DamagedError(f"{path} is damaged: its header cannot be read; {_RESTORE}") from e
        return False


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], Card]:
    """The weights and the card of a checkpoint.

    Raises DamagedError if the file is not what was written, UserError if it holds no network of this project.
    """
    tensors, header = load_tensors(path)
    if "model" not in header:
        raise UserError(f"{path} holds no model (a resume state?); give best.val, best.test or last")
    try:
        return tensors, Card.model_validate(header)
    except ValidationError as e:
        raise UserError(f"{error_sentence(e, Card, f'the card of {path}')}; train it again") from e


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header as plain data; raises DamagedError, or UserError if this project wrote no header."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}; give a run folder or a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            words = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as e:
        raise DamagedError(f"{path} is damaged or not a safetensors file; {_RESTORE}") from e
    if words is None:
        raise UserError(f"{path} was not written by crossclass: it carries no card")
    try:
        header: dict[str, Any] = json.loads(words)
        version = header["schema"]
        if type(version) is not int:
            raise TypeError(f"its schema is {version!r}, not a number")
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise DamagedError(f"{path} is damaged: its card cannot be read ({first_line(e)}); {_RESTORE}") from e
    if version > SCHEMA:
        raise UserError(
            f"{path}: the format {version} of its card is newer than this crossclass can read ({SCHEMA}); "
            "upgrade crossclass"
        )
    if fingerprint(tensors) != header.get("sha256"):
        raise DamagedError(f"{path} is damaged: its checksum does not fit; {_RESTORE}")
    return tensors, header
