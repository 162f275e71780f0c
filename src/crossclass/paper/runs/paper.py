"""The paper's runs (Table 2; PKU-ML/Cross-Class-Features-AT), every choice that its code hides made explicit.

PGD-10 with a step of eps/4 (l_inf) or eps/8 (l_2), uniform start (l_2: uniform direction and radius), batch
norm in train mode while crafting, SGD 0.1 with momentum 0.9 and weight decay 5e-4 on everything, batch
128, a tenth of the rate after epochs 100 and 150, reflect-padded crops. 1,000 training images are held
out, so that `best.val` exists beside the paper's own rule, `best.test`. By operation counts one run is 11
minutes on an H200-class GPU at best; an epoch is 1.8 hours on 2 CPU cores.
"""

from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.data import CIFAR10, CIFAR100, TinyImageNet
from crossclass.data.augment import Augment
from crossclass.models import PreActResNet, ResNet, ViT
from crossclass.training.labels import TemporalEnsembling
from crossclass.training.recipes import AT, KnowledgeDistillation, Standard
from crossclass.training.run import Run

_DATA = CIFAR10(n_val=1000, balanced=False)
_AT = AT(attack=PGD(bn="train"))
_RUN = Run(data=_DATA, recipe=_AT, checkpoint_every=10)

DEIT = ViT(patch=4, width=192, depth=12, heads=3, pretrained="timm/deit_tiny_patch16_224.fb_in1k")
"""DeiT-Ti for 32x32 images (Mo et al. 2022): patch 4, ImageNet weights with the patch kernel resized."""


def _linf(eps: int) -> Run:
    return _RUN.replace(recipe=AT(attack=PGD(threat=Linf(eps=eps / 255), bn="train")))


PAPER: dict[str, Run] = {
    **{f"wei2025-at-linf-{eps}": _linf(eps) for eps in (2, 4, 6, 8, 12, 16)},
    # The code's default l_2 step is 16/255, an eighth of 128/255.
    "wei2025-at-l2-128": _RUN.replace(
        recipe=AT(attack=PGD(threat=L2(eps=128 / 255), rel_step=0.125, start="uniform_radius", bn="train"))
    ),
    # Eq. 3. The paper leaves lambda, T and the teacher open: one teacher, the same-seed AT run's best.
    "wei2025-kd-linf-8": _RUN.replace(recipe=KnowledgeDistillation(inner=_AT, lam=0.5, T=2.0)),
    # Section 3.2 names them among the soft labels and prints no setting: Pang et al. 2021's largest useful
    # smoothing, and Dong et al. 2022's temporal ensembling, which crafts in eval mode; network and images are
    # those of the other runs.
    "wei2025-ls-linf-8": _RUN.replace(label_smoothing=0.2),
    "wei2025-te-linf-8": _RUN.replace(
        recipe=AT(attack=PGD(bn="eval")), ensembling=TemporalEnsembling(start=90, ramp=60, weight=300.0)
    ),
    # Section 5.2, FGSM-RS: uniform start and 1.25 eps, which collapses somewhere in 200 epochs.
    "wei2025-fat-linf-8": _RUN.replace(
        recipe=AT(attack=FGSM(start="uniform", rel_step=1.25, bn="train")),
        checkpoint_every=1,
    ),
    "wei2025-standard": _RUN.replace(recipe=Standard()),
    "wei2025-at-linf-8-cifar100": _RUN.replace(
        data=CIFAR100(n_val=1000, balanced=False), model=PreActResNet(normalise="cifar100")
    ),
    # By the official model.py: a post-activation ResNet-18 that pools by 4, so 2,048 features at 64x64.
    "wei2025-at-linf-8-tinyimagenet": _RUN.replace(
        data=TinyImageNet(n_val=2000, balanced=False),
        model=ResNet(depth=18, pool=4, normalise="tinyimagenet"),
    ),
    # The paper says no more than "DeiT-Ti"; rate, decay and clipping are Mo et al. 2022's, without its
    # mixup, and 200 epochs because 40 show no overfitting.
    "wei2025-at-linf-8-deit": _RUN.replace(
        model=DEIT,
        recipe=AT(attack=PGD(bn="eval")),
        augment=Augment(padding="zero"),
        weight_decay=1e-4,
        grad_clip_norm=1.0,
    ),
}
