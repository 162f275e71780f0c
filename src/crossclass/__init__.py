"""crossclass shows what an adversarially trained network learns and then forgets.

The public names, imported when first used, so that `import crossclass` itself costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; `_HOME` says the same at run time
    from crossclass.analysis.attribution import (
        cas as cas,
        class_means as class_means,
        correlation as correlation,
        negative_mass as negative_mass,
        separation as separation,
    )
    from crossclass.analysis.evaluate import evaluate as evaluate, summary as summary
    from crossclass.analysis.instances import (
        all_pairs as all_pairs,
        instance_correlation as instance_correlation,
        nearest as nearest,
    )
    from crossclass.analysis.measure import Measure as Measure, measure as measure
    from crossclass.analysis.metrics import Metric as Metric, register_metric as register_metric
    from crossclass.analysis.records import load_results as load_results
    from crossclass.analysis.run_record import load_run as load_run
    from crossclass.analysis.saliency import grad_cam as grad_cam
    from crossclass.analysis.torchmetrics import (
        CAS as CAS,
        ClassCorrelation as ClassCorrelation,
        ClasswiseAccuracy as ClasswiseAccuracy,
        InstanceCAS as InstanceCAS,
    )
    from crossclass.attacks import (
        FGSM as FGSM,
        PGD as PGD,
        Attack as Attack,
        AutoAttack as AutoAttack,
        External as External,
    )
    from crossclass.attacks.losses import cross_entropy as cross_entropy, kl as kl, margin as margin
    from crossclass.attacks.norms import L2 as L2, Linf as Linf
    from crossclass.checkpoints.load import Source as Source, load_model as load_model
    from crossclass.core.config import Settings as Settings
    from crossclass.core.errors import UserError as UserError
    from crossclass.core.overrides import override as override
    from crossclass.core.plugins import register as register
    from crossclass.core.runtime import Runtime as Runtime
    from crossclass.core.trust import trusting as trusting
    from crossclass.data import (
        CIFAR10 as CIFAR10,
        CIFAR100 as CIFAR100,
        Digits as Digits,
        Folder as Folder,
        Npz as Npz,
        Shapes as Shapes,
        TinyImageNet as TinyImageNet,
    )
    from crossclass.data.augment import Augment as Augment
    from crossclass.diagnostics import Doctor as Doctor, examine as examine
    from crossclass.models import (
        Classifier as Classifier,
        PreActResNet as PreActResNet,
        Python as Python,
        ResNet as ResNet,
        ViT as ViT,
        WideResNet as WideResNet,
        Wrapped as Wrapped,
    )
    from crossclass.models.model_state import frozen as frozen
    from crossclass.paper.runs import named as named
    from crossclass.report import write_report as write_report
    from crossclass.training.averaging import EMA as EMA, SWA as SWA
    from crossclass.training.labels import Mix as Mix, TemporalEnsembling as TemporalEnsembling
    from crossclass.training.loop import train as train
    from crossclass.training.recipes import (
        AT as AT,
        AWP as AWP,
        MART as MART,
        GradAlign as GradAlign,
        KnowledgeDistillation as KnowledgeDistillation,
        Standard as Standard,
        Teacher as Teacher,
        Trades as Trades,
    )
    from crossclass.training.run import Run as Run, Validation as Validation

_HOME = {
    "core.config": ("Settings",),
    "core.errors": ("UserError",),
    "core.plugins": ("register",),
    "analysis.attribution": ("cas", "class_means", "correlation", "negative_mass", "separation"),
    "analysis.instances": ("all_pairs", "instance_correlation", "nearest"),
    "attacks.losses": ("cross_entropy", "kl", "margin"),
    "models.model_state": ("frozen",),
    "attacks.norms": ("Linf", "L2"),
    "attacks": ("Attack", "PGD", "FGSM", "AutoAttack", "External"),
    "data": ("Shapes", "Digits", "CIFAR10", "CIFAR100", "TinyImageNet", "Npz", "Folder"),
    "data.augment": ("Augment",),
    "models": ("PreActResNet", "ResNet", "WideResNet", "ViT", "Python", "Classifier", "Wrapped"),
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
    "checkpoints.load": ("Source", "load_model"),
    "analysis.measure": ("Measure", "measure"),
    "analysis.metrics": ("Metric", "register_metric"),
    "analysis.records": ("load_results",),
    "analysis.run_record": ("load_run",),
    "diagnostics": ("Doctor", "examine"),
    "training.loop": ("train",),
    "paper.runs": ("named",),
    "report": ("write_report",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [*_WHERE]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module 'crossclass' has no attribute '{name}'")
        return getattr(import_module(f"crossclass.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
