"""Folders of weights as the Hugging Face libraries write them: one file, or an index and its shards."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossclass.checkpoints.other_formats import folder_of_others
from crossclass.core.errors import UserError

_NAMES = (
    *("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json"),
    *("pytorch_model.bin", "diffusion_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("open_clip_model.safetensors", "pytorch_model.safetensors"),
)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")


def is_folder_of_weights(path: Path) -> bool:
    """Whether a folder is no run folder and holds a file of one of the usual names."""
    return path.is_dir() and not (path / "config.yaml").is_file() and _named(path) is not None


def file_in(path: Path) -> Path:
    """The file, or the index of files, that a folder holds. Raises UserError if there is none or several."""
    found = _named(path)
    if found is not None:
        return found
    raise folder_of_others(path, [p.name for p in path.iterdir()])


def _named(path: Path) -> Path | None:
    return next((path / name for name in _NAMES if (path / name).is_file()), None)


def require_whole(path: Path) -> None:
    """Raises UserError if a file is one of several shards."""
    part = _SHARD.search(path.name)
    if part is None or int(part[2]) < 2:
        return
    index = path.with_name(f"{_SHARD.sub('', path.name)}.index.json")
    todo = f"give {index}" if index.is_file() else f"get the file {index.name} too, and give that"
    raise UserError(f"{path} is one of {int(part[2])} shards; {todo}")


def files_of(index: Path, weight_map: dict[str, Any]) -> list[Path]:
    """The shards that an index names. Raises UserError if one is missing or lies in another folder."""
    files = []
    for name in dict.fromkeys(weight_map.values()):
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise UserError(f"{index} names a file outside its folder ({name!r}); get the whole folder again")
        files.append(index.parent / name)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"{index.parent} lacks {len(missing)} of the {len(files)} shards that {index.name} names "
            f"({', '.join(missing[:3])}); get the whole folder again"
        )
    if not files:
        raise UserError(f"{index} names no files; get the whole folder again")
    return files


def read_shards(
    index: Path, weight_map: dict[str, Any], read: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """The tensors of all shards. Raises UserError if one is named and not there, or is there twice."""
    whole: dict[str, Any] = {}
    for file in files_of(index, weight_map):
        part = read(file)
        twice = next((name for name in part if name in whole), None)
        if twice is not None:
            raise UserError(f"{file} holds '{twice}' a second time; get the whole folder again")
        whole |= part
    missing = [name for name in weight_map if name not in whole]
    if missing:
        raise UserError(
            f"{index} names {len(missing)} tensors that its shards lack ({', '.join(missing[:3])}); get the "
            "whole folder again"
        )
    return whole
