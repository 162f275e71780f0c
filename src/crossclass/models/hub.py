"""The one door to the Hugging Face Hub: a repository's files, downloaded once and kept by its own cache."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from crossclass.core.errors import UserError, first_line
from crossclass.data.base import guarded


def weights_of(repo: str) -> dict[str, Tensor]:
    """The tensors of `model.safetensors` in a repository; raises UserError if it cannot be had."""
    path = downloaded(repo, "model.safetensors")
    with guarded(path, f"the file from {repo} is damaged", "delete it and try again"):
        return load_file(path)


def config_of(repo: str) -> dict[str, Any]:
    """The object in a repository's `config.json`; raises UserError if it cannot be had."""
    path = downloaded(repo, "config.json")
    with guarded(path, f"the file from {repo} is damaged", "delete it and try again"):
        config = json.loads(path.read_text(encoding="utf-8"))
    return config if isinstance(config, dict) else {}


def downloaded(repo: str, name: str) -> Path:
    """Where a file of a repository lies on this machine; raises UserError if it cannot be had."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as e:
        raise UserError(f"{repo} is on the Hugging Face Hub; pip install 'crossclass[timm]' first") from e
    try:
        return Path(hf_hub_download(repo, name))
    except Exception as e:  # offline, a wrong name, no access: its classes differ by version
        raise UserError(
            f"cannot get {name} of '{repo}' from the Hugging Face Hub ({type(e).__name__}: {first_line(e)}); "
            "check the name and the connection"
        ) from e
