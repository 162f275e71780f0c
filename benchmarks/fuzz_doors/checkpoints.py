"""Files of weights: ours and those of others."""

import io
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors

from crossclass.checkpoints import file_formats
from crossclass.checkpoints.card import load_tensors, save_tensors

from .data import npz_bytes
from .door import Door, of_bytes, written


def state() -> dict[str, torch.Tensor]:
    """Weights of a very small network."""
    return {"conv.weight": torch.ones(2, 3, 3, 3), "head.weight": torch.ones(2, 4), "n": torch.tensor(3)}


def torch_bytes(value: Any, zipped: bool) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def own_checkpoint() -> list[bytes]:
    """A checkpoint of ours."""
    with tempfile.TemporaryDirectory() as place:
        save_tensors(Path(place) / "a.safetensors", state(), {"epoch": 3, "checkpoint": "last"})
        return [(Path(place) / "a.safetensors").read_bytes()]


def strangers() -> list[bytes]:
    """Files of weights as others write them, one poisoned."""
    nested = {"state_dict": state(), "epoch": 3, "best": np.float64(1), "note": Path("x")}
    poison = pickle.dumps({"w": _Poison()}, protocol=2)
    files = [torch_bytes(v, z) for v in (state(), nested) for z in (True, False)]
    return [*files, poison, safetensors(state()), npz_bytes(w=np.ones(3), n=np.arange(2))]


class _Poison:
    """Unpickling it would make a folder where the fuzzer looks."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("poisoned",)


def checkpoint() -> Door:
    """A checkpoint of ours."""
    return of_bytes(own_checkpoint, written("a.safetensors", load_tensors))


def weights() -> Door:
    """A checkpoint of somebody else."""
    return of_bytes(strangers, written("model.pth", file_formats.read))


DOORS = {"checkpoint": checkpoint(), "weights": weights()}
