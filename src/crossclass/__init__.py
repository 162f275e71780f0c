"""crossclass shows what an adversarially trained network learns and then forgets.

The public names, imported when first used, so that `import crossclass` itself costs nothing.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "core.config": ("Settings",),
    "core.errors": ("UserError",),
    "analysis.attribution": ("cas", "class_means", "correlation", "negative_mass", "separation"),
    "analysis.instances": ("all_pairs", "instance_correlation", "nearest"),
    "attacks.losses": ("cross_entropy", "kl", "margin"),
    "models.model_state": ("frozen",),
    "attacks.norms": ("Linf", "L2"),
    "attacks": ("Attack", "PGD", "FGSM", "AutoAttack", "External"),
    "data": ("Shapes", "Digits", "CIFAR10", "CIFAR100", "TinyImageNet", "Npz", "Folder"),
    "data.augment": ("Augment",),
    "models": ("PreActResNet", "ResNet", "WideResNet", "ViT", "Classifier", "Wrapped"),
    "analysis.torchmetrics": ("CAS", "ClassCorrelation", "ClasswiseAccuracy", "InstanceCAS"),
    "analysis.saliency": ("grad_cam",),
    "training.recipes": (
        "Standard",
        "AT",
        "Trades",
        "MART",
        "GradAlign",
        "KnowledgeDistillation",
        "Teacher",
        "AWP",
    ),
    "training.averaging": ("SWA", "EMA"),
    "training.labels": ("Mix", "TemporalEnsembling"),
    "training.run": ("Validation", "Run"),
    "core.runtime": ("Runtime",),
    "core.overrides": ("override",),
    "core.trust": ("trusting",),
    "analysis.evaluate": ("evaluate", "summary"),
    "checkpoints.load": ("load_model",),
    "analysis.measure": ("measure",),
    "analysis.records": ("load_results",),
    "analysis.run_record": ("load_run",),
    "diagnostics": ("Doctor", "examine"),
    "training.loop": ("train",),
    "paper.runs": ("named",),
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
