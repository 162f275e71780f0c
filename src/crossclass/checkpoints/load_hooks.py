"""What a module's own `load_state_dict` makes of the names and tensors of a file.

A module may rename and reshape what older files hold, by hooks or by its own `_load_from_state_dict`: they
are run on a copy without memory, and what they leave is read off.
"""

import copy
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

_OF_TORCH = (
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
    (r"parametrizations\.weight\.original$", "weight_orig"),
    (r"parametrizations\.weight\.0\._u$", "weight_u"),
    (r"parametrizations\.weight\.0\._v$", "weight_v"),
    (r"(?<![\w])weight_g$", "parametrizations.weight.original0"),
    (r"(?<![\w])weight_v$", "parametrizations.weight.original1"),
    (r"(?<![\w])weight_orig$", "parametrizations.weight.original"),
    (r"(?<![\w])weight_u$", "parametrizations.weight.0._u"),
    (r"(?<![\w])weight_v$", "parametrizations.weight.0._v"),
)
"""Weight and spectral norm as `torch.nn.utils` and as `torch.nn.utils.parametrizations` name them."""


def by_own_hooks(
    module: nn.Module, tensors: Mapping[str, Tensor], versions: Mapping[str, Any] | None
) -> dict[str, Tensor] | None:
    """Names and tensors after the module's own hooks; None if it has none or they change nothing.

    Args:
        module: Its tensors stay as they are.
        tensors: Of a file, by the names of the module's state dict or older ones.
        versions: What the file notes about the formats of modules, by name (`_metadata` of a state dict).
    """
    if not any(map(_reads_names_itself, module.modules())):
        return None
    seen: list[tuple[nn.Module, str, dict[str, Any]]] = []

    def look(own: nn.Module, names: dict[str, Any], prefix: str, *rest: Any) -> None:
        seen.append((own, prefix, names))

    state = OrderedDict(tensors)
    state._metadata = OrderedDict(versions or {})  # type: ignore[attr-defined]
    try:
        weights = {id(t): t.detach().to("meta") for t in [*module.parameters(), *module.buffers()]}
        skeleton = copy.deepcopy(module, dict(weights))
        for part in skeleton.modules():
            part.register_load_state_dict_pre_hook(look)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing is copied into what has no memory
            skeleton.load_state_dict(state, strict=False)
    except Exception:  # of hooks, of shapes that do not fit and of what cannot be copied
        if not seen:
            return None
    changed: dict[str, Tensor] = {}
    for part, prefix, names in seen:  # each module has its own dictionary, with the names below it
        own = (prefix + name for name in (*part._parameters, *part._buffers))
        changed |= {name: names[name] for name in own if isinstance(names.get(name), Tensor)}
    inner = sorted(seen, key=lambda one: -len(one[1]))
    for name in tensors.keys() - changed.keys():
        if name in next(names for _, prefix, names in inner if name.startswith(prefix)):
            changed[name] = tensors[name]  # nobody has made another of it
    same = changed.keys() == tensors.keys() and all(changed[k] is tensors[k] for k in tensors)
    return None if same else changed


def by_torch_names(tensors: Iterable[str], own: Mapping[str, Any]) -> dict[str, str]:
    """New names to old, where torch itself has two names for the same tensor and the module has the other."""
    renamed: dict[str, str] = {}
    for name in tensors:
        others = (re.sub(pattern, word, name) for pattern, word in _OF_TORCH) if name not in own else ()
        renamed[next((new for new in others if new in own), name)] = name
    return renamed


def _reads_names_itself(module: nn.Module) -> bool:
    own = type(module)._load_from_state_dict is not nn.Module._load_from_state_dict
    return bool(module._load_state_dict_pre_hooks) or (
        own and not type(module).__module__.startswith("torch.nn")
    )
