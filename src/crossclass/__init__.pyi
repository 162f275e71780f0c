"""The public names and the modules that they live in; `__init__.py` imports them when first used."""

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
from crossclass.analysis.measured_runs import load_results as load_results
from crossclass.analysis.metrics import Metric as Metric, register_metric as register_metric
from crossclass.analysis.run_record import load_run as load_run
from crossclass.analysis.saliency import grad_cam as grad_cam
from crossclass.analysis.table_of_runs import table_of_runs as table_of_runs
from crossclass.analysis.torchmetrics import (
    CAS as CAS,
    CASByFeature as CASByFeature,
    ClassCorrelation as ClassCorrelation,
    ClasswiseAccuracy as ClasswiseAccuracy,
    InstanceCAS as InstanceCAS,
)
from crossclass.attacks import (
    FGSM as FGSM,
    PGD as PGD,
    Attack as Attack,
    AttackWarning as AttackWarning,
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
from crossclass.report import plot as plot, write_report as write_report
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
