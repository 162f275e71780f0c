"""crossclass shows what an adversarially trained network learns and then forgets.

The public names, imported when first used, so that `import crossclass` itself costs nothing.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "settings": ("Settings", "override"),
    "errors": ("UserError",),
    "attribution": ("cas", "class_means", "correlation", "negative_mass", "separation"),
    "instances": ("all_pairs", "instance_correlation", "nearest"),
    "losses": ("cross_entropy", "kl", "margin"),
    "view": ("frozen",),
    "threat": ("Linf", "L2"),
    "attacks": ("Attack", "PGD", "FGSM", "AutoAttack", "External"),
    "data": ("Shapes", "Digits", "CIFAR10", "CIFAR100", "TinyImageNet", "Npz", "Folder"),
    "augment": ("Augment",),
    "models": ("PreActResNet", "ResNet", "WideResNet", "ViT", "Classifier", "Wrapped"),
    "metrics": ("CAS", "ClassCorrelation", "ClasswiseAccuracy", "InstanceCAS"),
    "saliency": ("grad_cam",),
    "recipes": (
        *("Standard", "AT", "Trades", "MART", "GradAlign", "Distilled", "Teacher", "AWP"),
        *("SWA", "EMA", "Mix", "TemporalEnsembling", "Check", "Run"),
    ),
    "runtime": ("Runtime",),
    "evaluate": ("under", "summary"),
    "subjects": ("load_model",),
    "measure": ("measured",),
    "doctor": ("Doctor", "examine"),
    "train": ("trained",),
    "experiments.runs": ("named",),
    "report": ("write_report",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'crossclass' has no attribute '{name}'")
    return getattr(import_module(f"crossclass.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
